"""Numba, in one place: kernels, compiled at first use and cached on disk, and the types of their arrays."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import event
from numpy.typing import NDArray
from typing_extensions import override

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(function: _F) -> _F:
    """Compile `function` over flat arrays; it raises nothing, releases the GIL, and is cached."""
    compile: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(_F, compile(inspect.unwrap(function)))  # without the type checks of tests


class _SayOnce(event.Listener):
    """Says on a terminal that the first compilation, which nothing else would explain, takes its time."""

    said = False

    @override
    def on_start(self, event: event.Event) -> None:
        if not self.said and sys.stderr.isatty():
            print("laconic: compiling, once; later runs start at once", file=sys.stderr)
        self.said = True

    @override
    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _SayOnce())
