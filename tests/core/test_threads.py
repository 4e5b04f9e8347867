import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from laconic.core import threads


@pytest.mark.parametrize("n", [0, 1, threads.MIN_MAPPED_BYTES // 4 - 1, threads.MIN_MAPPED_BYTES // 4 + 1])
def test_an_array_is_flat_and_writable_and_outlives_its_name(n):
    found = threads.large_empty(n, np.uint32)
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
    view = threads.large_empty(n_bytes, np.uint8)[1:]
    view[:] = 1
    assert resident() - before > n_bytes // 2
    del view
    assert resident() - before < n_bytes // 2


def test_scratch_is_taken_again_for_the_same_purpose_in_the_same_thread():
    first = threads.scratch("test", 100, np.uint16)
    assert first.dtype == np.uint16 and first.shape == (100,)
    assert np.shares_memory(first, threads.scratch("test", 50, np.uint32))
    assert not np.shares_memory(first, threads.scratch("another test", 50, np.uint32))
    there = []
    thread = threading.Thread(target=lambda: there.append(threads.scratch("test", 100, np.uint16)))
    thread.start()
    thread.join()
    assert not np.shares_memory(first, there[0])
    large = [threads.scratch("test", threads.MAX_SCRATCH_BYTES + 1, np.uint8) for _ in range(2)]
    assert not np.shares_memory(*large)
