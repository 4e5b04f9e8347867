import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.file import container


@given(st.lists(st.binary(max_size=300)))
def test_pieces_have_the_checksum_of_the_whole(pieces):
    assert container.crc32(pieces) == zlib.crc32(b"".join(pieces))


@pytest.mark.parametrize("n", [container.CRC_BYTES - 1, container.CRC_BYTES, 3 * container.CRC_BYTES + 7])
def test_long_pieces_are_summed_up_by_several_threads(n):
    data = np.random.default_rng(0).bytes(n)
    with ThreadPoolExecutor(2) as pool:
        assert container.crc32([data, b"", memoryview(data)[5:]], pool.map) == zlib.crc32(data + data[5:])
