"""Integers of a fixed width, for hardware that has such: w ≈ q·Δ_row with q in ±(2^(b−1) − 1).

A row's scale is its clipping threshold over the largest integer. At full range the few largest weights make the scale
coarse for all others; below, they are clipped. Of a range of thresholds, each row takes the one with the least squared
error (the criterion of Banner, Nahshan & Soudry 2019, searched instead of derived from a distribution).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from laconic.core.jit import F64, I32, kernel
from laconic.quantization.grid import MAX_SCALE, Floats, Quantizer, Rounder, widened
from laconic.quantization.rounded import PerRowScale, Rounded

FACTORS = 2.0 ** (-np.arange(64) / 16)  # of a row's largest weight, down to a sixteenth
MIN_SCALE = 2.0**-126
AT_ONCE = 1 << 12  # rows, since each has many candidates


@dataclass(frozen=True)
class FixedBits(Quantizer, Rounder):
    """Integers of `n_bits` and a scale for each row, an output channel, of a matrix or more.

    The integers are symmetric, from −(2^(n_bits − 1) − 1) to 2^(n_bits − 1) − 1, and zero stays zero. Tensors of one
    dimension stay exact, and so do those whose weights are too large for scales.

    Attributes:
        n_bits: 2 to 8.
    """

    n_bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.n_bits <= 8:
            raise ValueError(f"n_bits: expected 2 to 8, got {self.n_bits}")

    @override
    def per_tensor(self, tensors: Mapping[str, Tensor]) -> dict[str, FixedBits]:
        return {name: self for name, tensor in tensors.items() if tensor.ndim > 1}

    @override
    def rounded(self, tensor: Tensor) -> Rounded | None:
        rows = widened(tensor).numpy().reshape(len(tensor), -1)
        most = 2 ** (self.n_bits - 1) - 1
        peaks = np.maximum(rows.max(1), -rows.min(1)).astype(np.float64)
        if peaks.max() / most > MAX_SCALE:
            return None
        bounds = (float(most), float(torch.finfo(tensor.dtype).max))
        q, chosen = np.empty(rows.shape, np.int32), np.ones(len(rows))
        for begin in range(0, len(rows), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            # The nearest bfloat16: where it is below the quotient, the peak is at most half a scale beyond.
            nearest = torch.from_numpy(np.outer(peaks[part] / most, FACTORS)).float().bfloat16().double().numpy()
            _round_rows(rows[part], np.clip(nearest, MIN_SCALE, MAX_SCALE), bounds, q[part], chosen[part])
        return Rounded(q.ravel(), PerRowScale(chosen))


@kernel
def _most(bounds: tuple[float, float], scale: float) -> float:
    """The largest integer; at scales below 1, every integer is within the type's range."""
    return min(bounds[0], np.floor(bounds[1] / max(scale, 1.0)))


@kernel
def _squared_error(weights: Floats, scale: float, most: float, enough: float) -> float:
    """Σ(w − ŵ)² with integers of at most `most`; the sum ends early where it reaches `enough`."""
    total = 0.0
    for weight in weights:
        w = np.float64(weight)
        e = w - min(max(np.rint(w / scale), -most), most) * scale
        total += e * e
        if total >= enough:
            break
    return total


@kernel
def _round_rows(rows: Floats, scales: F64, bounds: tuple[float, float], q: I32, chosen: F64) -> None:
    """Fill `q` and each row's `chosen` scale; `scales` (rows, factors) are tried. Bounds: of |q|, and of |q|·scale."""
    for row in range(rows.shape[0]):
        least = np.inf
        for scale in scales[row]:
            error = _squared_error(rows[row], scale, _most(bounds, scale), least)
            if error < least:
                least, chosen[row] = error, scale
        most = _most(bounds, chosen[row])
        for column in range(rows.shape[1]):
            x = np.rint(np.float64(rows[row, column]) / chosen[row])
            q[row, column] = np.int32(min(max(x, -most), most))
