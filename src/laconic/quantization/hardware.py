"""Quantizers for hardware: shared values, and integers of a fixed width.

Shared values: each weight becomes one of a few of its tensor ("Deep Compression"; Han, Mao & Dally 2016). The values
are centres of one-dimensional k-means: each is the mean of the weights that are nearest to it. They start evenly spaced
between the smallest weight and the largest, which the paper finds best, because large weights are few and matter.
Weights are sorted once; then a cell is a range of them, its sum a difference of two running sums, and a round of
Lloyd's algorithm takes k log n steps for n weights.

Integers of a fixed width: w ≈ q·Δ_row with q in ±(2^(b−1) − 1). A row's scale is its clipping threshold over the
largest integer. At full range the few largest weights make the scale coarse for all others; below, they are clipped. Of
a range of thresholds, each row takes the one with the least squared error (the criterion of Banner, Nahshan & Soudry
2019, searched instead of derived from a distribution).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from laconic.core.jit import F64, I32, I64, kernel
from laconic.quantization.grid import MAX_SCALE, Floats, Quantizer, Rounder, widened
from laconic.quantization.rounded import MAX_VALUES, CodebookValues, PerRowScale, Rounded

MAX_ROUNDS = 300
MAX_SUM = 1e300  # of weights
OVERHEAD = 16  # bytes that a short stream of indices may take beside them
FACTORS = 2.0 ** (-np.arange(64) / 16)  # of a row's largest weight, down to a sixteenth
MIN_SCALE = 2.0**-126
AT_ONCE = 1 << 12  # rows, since each has many candidates


@dataclass(frozen=True)
class Codebook(Quantizer, Rounder):
    """A few shared values for each tensor, for hardware that looks weights up in a table.

    A zero stays a zero: in a tensor that has any, zero is one of the values. A tensor that has no more values than that
    keeps them exactly, and so does one that is too small to save bytes. −0 becomes 0.

    Attributes:
        n_values: the most values that a tensor may have, 2 to 65,536, zero included.
    """

    n_values: int

    def __post_init__(self) -> None:
        if not 2 <= self.n_values <= MAX_VALUES:
            raise ValueError(f"n_values: expected 2 to {MAX_VALUES:,}, got {self.n_values:,}")

    @override
    def per_tensor(self, tensors: Mapping[str, Tensor]) -> dict[str, Codebook]:
        return dict.fromkeys(tensors, self)

    @override
    def rounded(self, tensor: Tensor) -> Rounded | None:
        weights = widened(tensor).numpy()
        ascending = np.sort(weights)
        # Not `np.unique`, which would sort again; −0 becomes 0.
        values = ascending[np.append(True, ascending[1:] != ascending[:-1])] + weights.dtype.type(0)
        if values.size <= self.n_values:
            kept = torch.from_numpy(values).to(tensor.dtype)
            return _indexed(weights, kept, values[:-1].astype(np.float64))
        # By counts alone, so that training does not change the answer.
        n_bytes = self.n_values * tensor.dtype.itemsize + tensor.numel() * math.log2(self.n_values) / 8 + OVERHEAD
        if n_bytes >= tensor.nbytes or float(max(-values[0], values[-1])) > MAX_SUM / values.size:
            return None
        centres = torch.from_numpy(_centres(ascending, self.n_values)).to(tensor.dtype)
        centres = (centres + 0).unique()  # in 16 bits some may meet, and one be −0
        exact = centres.double().numpy()
        return _indexed(weights, centres, (exact[1:] + exact[:-1]) / 2)


def _indexed(weights: Floats, values: Tensor, edges: F64) -> Rounded:
    """Weights as indices of those `values` that occur; `edges` lie between the values."""
    indices = _among(weights, edges)
    counts = np.bincount(indices, minlength=len(values))
    used = counts > 0
    values, place = values[torch.from_numpy(used)], (np.cumsum(used) - 1).astype(np.int32)
    zeros = values.double().numpy() == 0
    origin = int(zeros.argmax() if zeros.any() else counts[used].argmax())
    return Rounded((place - np.int32(origin))[indices], CodebookValues(values, origin))


def _centres(weights: Floats, n_values: int) -> F64:
    """At most `n_values` centres of sorted weights, ascending; where there are zeros, 0 is one of them."""
    sums = _running_sums(weights)
    share = np.arange(n_values) / (n_values - 1)
    centres = (1 - share) * float(weights[0]) + share * float(weights[-1])
    has_zero = np.searchsorted(weights, 0, "left") < np.searchsorted(weights, 0, "right")
    if has_zero:
        centres[np.abs(centres).argmin()] = 0
    ends = np.zeros(0, np.int64)
    for _ in range(MAX_ROUNDS):
        # In the weights' type: a search for float64 among float32 would copy all of them.
        before, middles = ends, ((centres[1:] + centres[:-1]) / 2).astype(weights.dtype)
        ends = np.searchsorted(weights, middles, "right")
        if np.array_equal(ends, before):
            break
        moved = _moved(weights, sums, centres, ends)
        centres = np.sort(np.where(has_zero & (centres == 0), centres, moved))
    return centres


def _running_sums(weights: Floats) -> F64:
    """Sums whose differences are sums of ranges, outward from zero, so that small weights keep their digits."""
    sums, zero = np.zeros(weights.size + 1), int(np.searchsorted(weights, 0))
    np.cumsum(weights[zero:], dtype=np.float64, out=sums[zero + 1 :])
    np.cumsum(-weights[:zero][::-1], dtype=np.float64, out=sums[:zero][::-1])
    return sums


def _moved(weights: Floats, sums: F64, centres: F64, ends: I64) -> F64:
    """The cells' means. Empty cells' centres go where the error is largest: to the mean of one side of a centre."""
    begins, ends = np.append(0, ends), np.append(ends, weights.size)
    means = np.where(begins < ends, _means(weights, sums, begins, ends), centres)
    empty = np.flatnonzero(begins == ends)
    if empty.size:
        places = centres.astype(weights.dtype)
        below = np.clip(np.searchsorted(weights, places, "left"), begins, ends)
        above = np.clip(np.searchsorted(weights, places, "right"), begins, ends)
        lows, highs = np.append(begins, above), np.append(below, ends)
        sides = _means(weights, sums, lows, highs)
        gains = (highs - lows) * (sides - np.append(centres, centres)) ** 2
        most = np.argsort(-gains, kind="stable")[: empty.size]
        means[empty[: most.size]] = sides[most]
    return means


def _means(weights: Floats, sums: F64, begins: I64, ends: I64) -> F64:
    """Means of ranges of sorted weights, clipped to the ranges, since sums may cancel beyond their digits."""
    means = (sums[ends] - sums[begins]) / np.maximum(ends - begins, 1)
    last = weights.size - 1
    return np.clip(means, weights[np.minimum(begins, last)], weights[np.maximum(ends - 1, 0)])


@kernel
def _among(weights: Floats, edges: F64) -> I32:
    """How many of the ascending `edges` are less than each weight."""
    found = np.empty(weights.size, np.int32)
    for i in range(weights.size):
        found[i] = np.searchsorted(edges, np.float64(weights[i]))
    return found


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
