"""For work on threads: maps, the number of cores, large arrays, and scratch buffers of each thread.

The memory that threads free stays with the allocator, so a process that codes tensor after tensor would grow to several
times the largest. Large arrays are memory mappings of their own, in large pages if the system has them. Each thread
keeps buffers for intermediate results of blocks, since filling fresh pages takes as long as coding a block.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

A = TypeVar("A")
B = TypeVar("B")
MIN_MAPPED_BYTES = 24 << 20  # smaller arrays are better taken from the allocator
MAX_SCRATCH_BYTES = 4 << 20  # that a thread keeps for one purpose

_kept = threading.local()


@runtime_checkable
class Map(Protocol):
    """The built-in `map`, or the `map` of a thread pool."""

    def __call__(self, work: Callable[[A], B], items: Iterable[A], /) -> Iterable[B]:
        """Results of `work` for each item, in order."""
        ...


def n_cores() -> int:
    """Number of cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def large_empty(n: int, dtype: DTypeLike) -> NDArray[Any]:
    """A flat array of `n` uninitialised elements."""
    n_bytes = n * np.dtype(dtype).itemsize
    if n_bytes < MIN_MAPPED_BYTES or not hasattr(mmap, "MAP_ANONYMOUS"):  # not on Windows
        return np.empty(n, dtype)
    mapping = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # on Linux
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, dtype, n)


def scratch(purpose: str, n: int, dtype: DTypeLike) -> NDArray[Any]:
    """Like `large_empty`, but valid until this thread's next call for the same purpose."""
    n_bytes = n * np.dtype(dtype).itemsize
    if n_bytes > MAX_SCRATCH_BYTES:
        return large_empty(n, dtype)
    found: NDArray[Any] | None = getattr(_kept, purpose, None)
    if found is None or found.size < n_bytes:
        found = np.empty(n_bytes, np.uint8)
        setattr(_kept, purpose, found)
    return found[:n_bytes].view(dtype)
