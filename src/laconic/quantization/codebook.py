"""Shared values: each weight becomes one of a few of its tensor ("Deep Compression"; Han, Mao & Dally 2016).

The values are centres of one-dimensional k-means: each is the mean of the weights that are nearer to it than
to any other. They start evenly spaced between the smallest weight and the largest, which the paper finds
best, because large weights are few and matter. Weights are sorted once; then a cell is a range of them, its
sum a difference of two running sums, and a round of Lloyd's algorithm takes k log n steps for n weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laconic.core.jit import F64, I32, I64, kernel
from laconic.quantization.grid import Floats, widened
from laconic.quantization.rounded import MAX_VALUES, CodebookValues, Rounded

MAX_ROUNDS = 300
MAX_SUM = 1e300  # of a sum of weights
OVERHEAD = 16  # bytes that a short stream of indices may take beside them


@dataclass(frozen=True)
class Codebook:
    """A few shared values for each tensor, for hardware that looks weights up in a table.

    A zero stays a zero: in a tensor that has any, zero is one of the values. A tensor that has no more values
    than that keeps them exactly, and so does one that is too small to save bytes. −0 becomes 0.

    Attributes:
        n_values: the most values that a tensor may have, 2 to 65,536, zero included.
    """

    n_values: int

    def __post_init__(self) -> None:
        if not 2 <= self.n_values <= MAX_VALUES:
            raise ValueError(f"n_values: expected 2 to {MAX_VALUES:,}, got {self.n_values:,}")

    def per_tensor(self, tensors: Mapping[str, Tensor]) -> dict[str, Codebook]:
        """The same for each tensor."""
        return dict.fromkeys(tensors, self)

    def rounded(self, tensor: Tensor) -> Rounded | None:
        """Indices of values; None where the tensor has more values and too few weights to share them."""
        weights = widened(tensor).numpy()
        ascending = np.sort(weights)
        values = _distinct(ascending)
        if values.size <= self.n_values:
            kept = torch.from_numpy(values).to(tensor.dtype)
            return _indexed(weights, kept, values[:-1].astype(np.float64))
        if not self._pays(tensor) or float(max(-values[0], values[-1])) > MAX_SUM / values.size:
            return None
        centres = torch.from_numpy(_centres(ascending, self.n_values)).to(tensor.dtype)
        centres = (centres + 0).unique()  # in 16 bits some may meet, and one be −0
        exact = centres.double().numpy()
        return _indexed(weights, centres, (exact[1:] + exact[:-1]) / 2)

    def _pays(self, tensor: Tensor) -> bool:
        """Whether the chunk gets shorter, by counts alone: so training does not change the answer."""
        n_bits = tensor.numel() * math.log2(self.n_values)
        return self.n_values * tensor.dtype.itemsize + n_bits / 8 + OVERHEAD < tensor.nbytes


def _distinct(weights: Floats) -> Floats:
    """The values of sorted weights, each once."""
    first = np.ones(weights.size, np.bool_)
    first[1:] = weights[1:] != weights[:-1]
    return weights[first] + weights.dtype.type(0)  # −0 becomes 0


def _indexed(weights: Floats, values: Tensor, edges: F64) -> Rounded:
    """Weights as indices of those `values` that occur, between which the edges lie."""
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
    """Sums whose differences are those of ranges, outward from zero: so small weights keep their digits."""
    sums, zero = np.zeros(weights.size + 1), int(np.searchsorted(weights, 0))
    np.cumsum(weights[zero:], dtype=np.float64, out=sums[zero + 1 :])
    np.cumsum(-weights[:zero][::-1], dtype=np.float64, out=sums[:zero][::-1])
    return sums


def _moved(weights: Floats, sums: F64, centres: F64, ends: I64) -> F64:
    """The means of the cells that end there; an empty cell's centre goes where it is needed most.

    That is to the weights on one side of a centre, and there to their mean.
    """
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
    """Of ranges of sorted weights; where sums cancel beyond their digits, a mean is still in its range."""
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
