"""Numba, in one place: kernels are compiled at first use and cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(function: _F) -> _F:
    """Compile `function` over flat arrays; it raises nothing, releases the GIL, and is cached."""
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(_F, compiled(function))
