"""Shared values: each weight becomes one of a few of its tensor ("Deep Compression"; Han, Mao & Dally 2016).

The values are centres of one-dimensional k-means: each is the mean of the weights that are nearest to it. They start
evenly spaced between the smallest weight and the largest, which the paper finds best, because large weights are few and
matter. Weights are sorted once; then a cell is a range of them, its sum a difference of two running sums, and a round
of Lloyd's algorithm takes k log n steps for n weights.
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
from laconic.quantization.grid import Floats, Quantizer, Rounder, widened
from laconic.quantization.rounded import MAX_VALUES, CodebookValues, Rounded

MAX_ROUNDS = 300
MAX_SUM = 1e300  # of weights
OVERHEAD = 16  # bytes that a short stream of indices may take beside them


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
        low, high = 0, edges.size
        while low < high:
            middle = (low + high) // 2
            if edges[middle] < weights[i]:
                low = middle + 1
            else:
                high = middle
        found[i] = low
    return found
