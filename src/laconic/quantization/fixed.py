"""Integers of a fixed width, for hardware that has such: w ≈ q·Δ_row with q in ±(2^(b−1) − 1).

A row's step is its clipping threshold over the largest integer. At full range the few largest weights make
the step coarse for all others; below, they are clipped. Of a range of thresholds, each row takes the one with
the least squared error (the criterion of Banner, Nahshan & Soudry 2019, searched instead of derived from a
distribution).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laconic.jit import F64, I32, kernel
from laconic.quantization.grid import LARGEST_STEP, Floats, widened
from laconic.quantization.legends import Rounded, RowSteps

FACTORS = 2.0 ** (-np.arange(64) / 16)  # of a row's largest weight, down to a sixteenth
LEAST_STEP = 2.0**-126
AT_ONCE = 1 << 12  # rows, whose candidates are many more than they


@dataclass(frozen=True)
class FixedBits:
    """Integers of `n_bits` and a step for each row, an output channel, of a matrix or more.

    The integers are symmetric, from −(2^(n_bits − 1) − 1) to 2^(n_bits − 1) − 1, and zero stays zero. Tensors
    of one dimension stay exact.

    Attributes:
        n_bits: 2 to 8.
    """

    n_bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.n_bits <= 8:
            raise ValueError(f"n_bits: expected 2 to 8, got {self.n_bits}")

    def of_each(self, tensors: Mapping[str, Tensor]) -> dict[str, FixedBits]:
        """The same for each matrix."""
        return {name: self for name, tensor in tensors.items() if tensor.ndim > 1}

    def rounded(self, tensor: Tensor) -> Rounded | None:
        """Integers and the rows' steps; None where the weights are too large for steps."""
        rows = widened(tensor).numpy().reshape(len(tensor), -1)
        most = 2 ** (self.n_bits - 1) - 1
        peaks = np.maximum(rows.max(1), -rows.min(1)).astype(np.float64)
        if peaks.max() / most > LARGEST_STEP:
            return None
        bounds = (float(most), float(torch.finfo(tensor.dtype).max))
        q, chosen = np.empty(rows.shape, np.int32), np.ones(len(rows))
        for begin in range(0, len(rows), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            _round_rows(rows[part], _candidates(peaks[part] / most), bounds, q[part], chosen[part])
        return Rounded(q.ravel(), RowSteps(chosen))


def _candidates(steps: F64) -> F64:
    """For each row the steps to try, (rows, factors), from that of its full range down."""
    # The nearest bfloat16: where it is below the quotient, the peak is at most half a step beyond.
    nearest = torch.from_numpy(np.outer(steps, FACTORS)).float().bfloat16().double().numpy()
    return np.clip(nearest, LEAST_STEP, LARGEST_STEP)


@kernel
def _most(bounds: tuple[float, float], step: float) -> float:
    """The largest integer; below a step of 1, any is within a type's numbers."""
    return min(bounds[0], np.floor(bounds[1] / max(step, 1.0)))


@kernel
def _squared_error(weights: Floats, step: float, most: float, enough: float) -> float:
    """Σ(w − ŵ)² with integers of at most `most`; given up where it reaches `enough`."""
    total = 0.0
    for weight in weights:
        w = np.float64(weight)
        e = w - min(max(np.rint(w / step), -most), most) * step
        total += e * e
        if total >= enough:
            break
    return total


@kernel
def _round_rows(rows: Floats, steps: F64, bounds: tuple[float, float], q: I32, chosen: F64) -> None:
    """Fill `q` and each row's `chosen` step. Bounds: of |q|, and of |q|·step."""
    for row in range(rows.shape[0]):
        least = np.inf
        for step in steps[row]:
            error = _squared_error(rows[row], step, _most(bounds, step), least)
            if error < least:
                least, chosen[row] = error, step
        most = _most(bounds, chosen[row])
        for column in range(rows.shape[1]):
            x = np.rint(np.float64(rows[row, column]) / chosen[row])
            q[row, column] = np.int32(min(max(x, -most), most))
