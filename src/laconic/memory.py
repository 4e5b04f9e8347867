"""Large arrays in memory of their own.

What an allocator takes back from threads it keeps in their heaps, in pieces, so a process that codes tensor
after tensor would grow to several times the largest. A mapping goes back to the system when its array does.
It also asks for large pages: filling a fresh array page by page takes as long as coding it.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LARGE = 1 << 20  # bytes; mapping less takes longer than it saves


def empty(n: int, dtype: DTypeLike) -> NDArray[Any]:
    """A flat array of `n` elements, whose values are anything."""
    n_bytes = n * np.dtype(dtype).itemsize
    if n_bytes < LARGE or not hasattr(mmap, "MAP_ANONYMOUS"):  # not on Windows
        return np.empty(n, dtype)
    mapping = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # on Linux
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, dtype, n)
