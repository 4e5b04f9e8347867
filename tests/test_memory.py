import sys
from pathlib import Path

import numpy as np
import pytest

from laconic import memory


@pytest.mark.parametrize("n", [0, 1, memory.LARGE // 4 - 1, memory.LARGE // 4 + 1])
def test_an_array_is_flat_and_writable_and_outlives_its_name(n):
    found = memory.empty(n, np.uint32)
    found[:] = np.arange(n)
    part = found[n // 2 :]
    assert found.shape == (n,) and found.dtype == np.uint32
    del found
    assert (part == np.arange(n // 2, n)).all()


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux counts it")
def test_memory_goes_back_with_the_last_view():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    n_bytes = 64 << 20
    before = resident()
    view = memory.empty(n_bytes, np.uint8)[1:]
    view[:] = 1
    assert resident() - before > n_bytes // 2
    del view
    assert resident() - before < n_bytes // 2
