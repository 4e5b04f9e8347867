import numpy as np

from laconic.coding import byte_stream
from laconic.coding.bitio import Cursor


def test_bytes_whose_table_would_be_overfull_stay_raw():
    """4096 / 182 is 22.5, which rounds up, 182 times."""
    rng = np.random.default_rng(0)
    uniform = rng.permutation(np.resize(np.arange(182), 182 * 64).astype(np.uint8))
    still = np.zeros(7 * uniform.size, np.uint8)
    for plane in (uniform, np.concatenate([still, uniform])):
        assert byte_stream.write(plane, 32) is None


def test_bytes_beside_a_table_that_is_full_come_back():
    """One value more often than the others leaves room for them."""
    values = np.concatenate([np.zeros(40_000, np.uint8), np.resize(np.arange(182), 182 * 64).astype(np.uint8)])
    plane = np.random.default_rng(0).permutation(values)
    coded = byte_stream.write(plane, 32)
    assert coded is not None
    assert len(coded) < plane.size
    back = np.empty_like(plane)
    byte_stream.read(Cursor(coded, "here"), back, 32)
    assert (back == plane).all()
