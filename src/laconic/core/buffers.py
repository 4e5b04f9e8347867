"""Arrays whose memory is known to go back, and arrays that are used again.

What threads free stays with the allocator's heaps, so a process that codes tensor after tensor would grow to
several times the largest. Large arrays are mappings of their own, which end with the array, in large pages
where the system has them. Blocks' intermediate results are kept by each thread: to fill in fresh pages takes
as long as to code a block.
"""

from __future__ import annotations

import mmap
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MIN_MAPPED_BYTES = 24 << 20  # bytes; smaller arrays are better taken from what the allocator has kept
MAX_SCRATCH_BYTES = 4 << 20  # bytes that a thread keeps for one purpose

_kept = threading.local()


def empty(n: int, dtype: DTypeLike) -> NDArray[Any]:
    """A flat array of `n` elements, whose values are anything."""
    n_bytes = n * np.dtype(dtype).itemsize
    if n_bytes < MIN_MAPPED_BYTES or not hasattr(mmap, "MAP_ANONYMOUS"):  # not on Windows
        return np.empty(n, dtype)
    mapping = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # on Linux
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, dtype, n)


def scratch(purpose: str, n: int, dtype: DTypeLike) -> NDArray[Any]:
    """Like `empty`, but the next array that this thread asks for, for the same purpose, takes its place."""
    n_bytes = n * np.dtype(dtype).itemsize
    if n_bytes > MAX_SCRATCH_BYTES:
        return empty(n, dtype)
    found: NDArray[Any] | None = getattr(_kept, purpose, None)
    if found is None or found.size < n_bytes:
        found = np.empty(n_bytes, np.uint8)
        setattr(_kept, purpose, found)
    return found[:n_bytes].view(dtype)
