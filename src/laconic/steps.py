"""What chunks on grids share: steps, the upper halves of float32s' bits; and the error promised."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from laconic.coding.bits import Cursor
from laconic.forms import GRID_DTYPES, Form
from laconic.jit import F64

N_STEP_BYTES = 2
PASS = 1 << 19  # elements at once, so that no copy of the tensor in float64 is made


def step_bytes(steps: float | F64) -> bytes:
    """The bytes of one or more steps, which are bfloat16 numbers."""
    return (np.asarray(steps, np.float32).view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()


def read_step(form: Form, source: Cursor) -> float:
    """The next step; FormatError if it is none, or the tensor's type has no grid."""
    return float(read_steps(form, source, 1)[0])


def read_steps(form: Form, source: Cursor, n: int) -> F64:
    """The next `n` steps; FormatError if one is none, or the tensor's type has no grid."""
    if form.dtype not in GRID_DTYPES:
        raise source.error("a floating type on the grid", str(form.dtype))
    bits = np.frombuffer(source.take(n * N_STEP_BYTES), "<u2").astype(np.uint32)
    steps = (bits << np.uint32(16)).view(np.float32)
    wrong = steps[~((steps > 0) & (steps < math.inf))]
    if wrong.size:
        raise source.error("a positive finite step", f"{wrong[0]}")
    return steps.astype(np.float64)


def keeps(tensor: Tensor, decoded: Callable[[slice], Tensor], relative_error: float) -> bool:
    """Whether the flat `tensor`, decoded part by part, is finite and within the error."""
    error, energy = 0.0, 0.0
    for begin in range(0, tensor.numel(), PASS):
        part = slice(begin, begin + PASS)
        exact = tensor[part].double()
        error += float((decoded(part).double() - exact).square().sum())
        energy += float(exact.square().sum())
    return error <= relative_error**2 * energy
