"""Large arrays whose memory returns to the system when freed, and scratch buffers of each thread.

The memory that threads free stays with the allocator, so a process that codes tensor after tensor would grow to several
times the largest. Large arrays are memory mappings of their own, in large pages if the system has them. Each thread
keeps buffers for intermediate results of blocks, since filling fresh pages takes as long as coding a block.
"""

from __future__ import annotations

import mmap
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MIN_MAPPED_BYTES = 24 << 20  # smaller arrays are better taken from the allocator
MAX_SCRATCH_BYTES = 4 << 20  # that a thread keeps for one purpose

_kept = threading.local()


def empty(n: int, dtype: DTypeLike) -> NDArray[Any]:
    """A flat array of `n` uninitialised elements."""
    n_bytes = n * np.dtype(dtype).itemsize
    if n_bytes < MIN_MAPPED_BYTES or not hasattr(mmap, "MAP_ANONYMOUS"):  # not on Windows
        return np.empty(n, dtype)
    mapping = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # on Linux
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, dtype, n)


def scratch(purpose: str, n: int, dtype: DTypeLike) -> NDArray[Any]:
    """Like `empty`, but valid until this thread's next call for the same purpose."""
    n_bytes = n * np.dtype(dtype).itemsize
    if n_bytes > MAX_SCRATCH_BYTES:
        return empty(n, dtype)
    found: NDArray[Any] | None = getattr(_kept, purpose, None)
    if found is None or found.size < n_bytes:
        found = np.empty(n_bytes, np.uint8)
        setattr(_kept, purpose, found)
    return found[:n_bytes].view(dtype)
