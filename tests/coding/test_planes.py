import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from laconic.coding import byte_stream, planes
from laconic.coding.bitio import Cursor
from laconic.errors import FormatError

TYPES = (np.uint8, np.uint16, np.uint32, np.uint64)
words = st.sampled_from(TYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.integers(1, 600),
        elements=st.one_of(st.integers(0, 9), st.just(0), st.integers(0, int(np.iinfo(dtype).max))),
    )
)


@given(words, st.sampled_from([0, 1, 32, 50]), st.booleans())
def test_planes_of_any_words_round_trip(found, n_columns, floating):
    out = np.empty(planes.most_bytes(found.size, found.itemsize), np.uint8)
    coded = bytes(planes.encode(found, n_columns, floating, out))
    back = np.empty_like(found)
    planes.decode(Cursor(coded, "here"), back, n_columns, floating)
    assert (back == found).all()
    parts = planes.measure(Cursor(coded, "here"), found.size, found.itemsize, n_columns)
    assert parts.total() == len(coded) <= found.nbytes + 1 + found.itemsize


@given(words)
def test_magnitudes_of_any_words_round_trip(found):
    coded = b"".join(planes.encode_octaves(found))
    assert (planes.decode_octaves(Cursor(coded, "here"), found.size, found.dtype) == found).all()
    assert planes.measure_octaves(Cursor(coded, "here"), found.size).total() == len(coded)
    with pytest.raises(FormatError):
        planes.decode_octaves(Cursor(coded + b"\0", "here"), found.size, found.dtype)
    with pytest.raises(FormatError):
        planes.decode_octaves(Cursor(coded[:-1], "here"), found.size, found.dtype)


def entropy_bytes(plane):
    counts = np.bincount(plane)
    counts = counts[counts > 0]
    return -(counts * np.log2(counts / counts.sum())).sum() / 8


@pytest.mark.parametrize("n", [500, 5000, 80_000])
def test_bytes_code_near_their_entropy_and_rows_below_it(n):
    rng = np.random.default_rng(0)
    one = np.clip(np.rint(rng.normal(120, 1.5, n)), 0, 255).astype(np.uint8)
    assert len(byte_stream.write(one, 1)) <= 1.01 * entropy_bytes(one) + 40
    rows = (one.reshape(-1, 50) + 9 * (np.arange(n // 50)[:, None] % 3)).astype(np.uint8).ravel()
    coded = byte_stream.write(rows, n // 50)
    back = np.empty_like(rows)
    byte_stream.read(Cursor(coded, "here"), back, n // 50)
    assert (back == rows).all()
    if n > 500:
        assert len(coded) < 0.75 * entropy_bytes(rows)


def test_noise_is_no_stream():
    noise = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    assert byte_stream.write(noise, 100) is None
    assert byte_stream.write(noise[:3000], 1) is None
