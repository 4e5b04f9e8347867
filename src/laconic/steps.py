"""What chunks on grids share: the step, the upper half of a float32's bits; and the error promised."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from laconic.coding.bits import Cursor
from laconic.forms import GRID_DTYPES, Form

N_STEP_BYTES = 2
PASS = 1 << 19  # elements at once, so that no copy of the tensor in float64 is made


def step_bytes(step: float) -> bytes:
    """The bytes of a step, which is a bfloat16."""
    return (np.float32(step).view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()


def read_step(form: Form, source: Cursor) -> float:
    """The next step; FormatError if it is none, or the tensor's type has no grid."""
    if form.dtype not in GRID_DTYPES:
        raise source.error("a floating type on the grid", str(form.dtype))
    bits = int.from_bytes(source.take(N_STEP_BYTES), "little")
    step = float(np.uint32(bits << 16).view(np.float32))
    if not 0 < step < math.inf:
        raise source.error("a positive finite step", f"{step}")
    return step


def keeps(tensor: Tensor, decoded: Callable[[slice], Tensor], relative_error: float) -> bool:
    """Whether the flat `tensor`, decoded part by part, is finite and within the error."""
    error, energy = 0.0, 0.0
    for begin in range(0, tensor.numel(), PASS):
        part = slice(begin, begin + PASS)
        exact = tensor[part].double()
        error += float((decoded(part).double() - exact).square().sum())
        energy += float(exact.square().sum())
    return error <= relative_error**2 * energy
