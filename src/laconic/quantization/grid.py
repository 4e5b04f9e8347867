"""The uniform grid: w ≈ q·Δ with an integer q and one scale Δ per tensor.

Scales are bfloat16 numbers: two bytes in a file, and q·Δ is exact in float32 for |q| < 2^16, so that decoded weights
quantise to themselves. On a fine grid ‖w − ŵ‖² ≈ n·Δ²/12; on a coarse one and for peaked weights it is less, so the
scale for a stated distortion is searched for, not computed.

Over several tensors, relative errors ε_l that act on the network's output alike add up as Σ ε_l², and cost
−Σ n_l log2 ε_l bits: the sum of bits is least where ε_l is proportional to √n_l. A vocabulary's table is an exception:
it may be the output layer too, so it has no more error than the largest other layer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from laconic.core.jit import I32, kernel
from laconic.quantization.rounded import PerTensorScale, Rounded, on_grid

Floats = NDArray[Any]  # flat, float32 or float64
MAX_Q = 2**31 - 2
MAX_SCALE = 2.0**127
MAX_MULTIPLES = 1 << 16  # of the scale, in the largest number of a tensor that is on a grid already
MAX_DIVISOR = 1 << 10  # multiples of the scale that all its numbers may share
N_FIRST = 1 << 12  # elements of a large tensor that are examined first
PASS_ELEMENTS = 1 << 19  # elements at once, so that no copy of the tensor in float64 is made
MIN_ROWS_OF_A_TABLE = 8  # for each column
MARGINS = (1.0, 0.97, 0.9)  # of the error, tried in turn where rounding to the tensor's type adds to it


@runtime_checkable
class Rounder(Protocol):
    """Rounds one tensor."""

    def rounded(self, tensor: Tensor) -> Rounded | None:
        """Integers and what they stand for; None if the tensor is to stay exact."""
        ...


@runtime_checkable
class Quantizer(Protocol):
    """Floats → integers, for the tensors of a file."""

    def per_tensor(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Rounder]:
        """What rounds each tensor. Only names and shapes are read: tensors may be on the device `meta`."""
        ...


@dataclass(frozen=True)
class Grid(Quantizer, Rounder):
    """Uniform grids whose distortion is stated relative to each tensor.

    Attributes:
        relative_error: the largest allowed ‖w − ŵ‖ / ‖w‖ (Frobenius norms), within (0, 1), that of a file's largest
            layer, tables of vocabularies left aside. Smaller layers get less, see `share`.
    """

    relative_error: float = 0.025

    def __post_init__(self) -> None:
        if not 0 < self.relative_error < 1:
            raise ValueError(f"relative_error: expected within (0, 1), got {self.relative_error}")

    @override
    def per_tensor(self, tensors: Mapping[str, Tensor]) -> dict[str, Grid]:
        layers = {name: name.rpartition(".")[0] for name in tensors}  # so a bias has the error of its weight
        sizes: Counter[str] = Counter()
        for name, tensor in tensors.items():
            sizes[layers[name]] += tensor.numel()
        tables = {layers[name] for name, t in tensors.items() if _is_table(t)}
        largest = max((n for layer, n in sizes.items() if layer not in tables), default=max(sizes.values(), default=0))
        return {name: self.share(sizes[layers[name]], largest) for name, t in tensors.items() if t.numel()}

    def share(self, n: int, n_largest: int) -> Grid:
        """The grid for a layer of `n` elements in a file whose largest has `n_largest`."""
        return Grid(self.relative_error * math.sqrt(min(n / n_largest, 1)))

    @override
    def rounded(self, tensor: Tensor) -> Rounded | None:
        weights = widened(tensor).numpy()
        largest = torch.finfo(tensor.dtype).max
        peak = max(-float(weights.min()), float(weights.max()))
        for margin in MARGINS:
            scale = Grid(self.relative_error * margin).scale(weights)
            if scale is None:
                return None
            q = quantize(weights, scale, largest)
            # Rounding to 16 bits, or down from the type's largest value, adds to the grid's own error.
            as_measured = tensor.dtype.itemsize > 2 and peak + scale <= largest
            decoded = partial(_decoded, q, scale, tensor.dtype)
            if as_measured or within_error(tensor.reshape(-1), decoded, self.relative_error):
                return Rounded(q, PerTensorScale(scale))
        return None

    def scale(self, weights: Floats) -> float | None:
        """The largest scale, to within 1 %, that keeps `weights` (flat, finite) within the error.

        None if no grid does: the weights span more than 32-bit integers, or are too small or too large for a scale or
        for their squares.
        """
        energy, n_nonzero, largest = moments(weights)
        allowed = self.relative_error**2 * energy
        if largest == 0:
            return 1.0
        if not 0 < allowed < math.inf:
            return None
        low = high = as_scale(math.sqrt(12 * allowed / n_nonzero))
        while low and squared_error(weights, low) > allowed:
            low, high = as_scale(low / 1.5), low
        if low == 0 or largest / low > MAX_Q:
            return None
        while low == high < MAX_SCALE:  # beyond 2·largest all is zero, and the error the whole energy
            high = as_scale(1.5 * low)
            if squared_error(weights, high) <= allowed:
                low = high
        while (middle := as_scale(math.sqrt(low * high))) > low and high > 1.01 * low:
            if squared_error(weights, middle) <= allowed:
                low = middle
            else:
                high = middle
        return low


def _is_table(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and len(tensor) >= MIN_ROWS_OF_A_TABLE * tensor.shape[1]


@dataclass(frozen=True)
class KeepGrid(Quantizer):
    """Keeps tensors that are on a grid already, such as `CodeLengthRule` leaves, and rounds only the others.

    Attributes:
        otherwise: the quantizer of the others.
    """

    otherwise: Quantizer

    @override
    def per_tensor(self, tensors: Mapping[str, Tensor]) -> dict[str, Rounder]:
        return {name: _Kept(rounder) for name, rounder in self.otherwise.per_tensor(tensors).items()}


@dataclass(frozen=True)
class _Kept(Rounder):
    otherwise: Rounder

    @override
    def rounded(self, tensor: Tensor) -> Rounded | None:
        return exactly(tensor) or self.otherwise.rounded(tensor)


def _decoded(q: I32, scale: float, dtype: torch.dtype, part: slice) -> Tensor:
    return on_grid(q[part], scale, dtype)


def within_error(tensor: Tensor, decoded: Callable[[slice], Tensor], relative_error: float) -> bool:
    """Whether the flat `tensor`, decoded part by part, is finite and within the relative error."""
    error, energy = 0.0, 0.0
    for begin in range(0, tensor.numel(), PASS_ELEMENTS):
        part = slice(begin, begin + PASS_ELEMENTS)
        exact = tensor[part].double()
        error += float((decoded(part).double() - exact).square().sum())
        energy += float(exact.square().sum())
    return error <= relative_error**2 * energy


def exactly(tensor: Tensor) -> Rounded | None:
    """The integers of a tensor whose numbers, finite or not, are all on one grid already; else None."""
    weights, common = np.zeros(0), 0.0
    for part in (tensor.reshape(-1)[:N_FIRST], tensor):  # of a tensor on no grid, the first hardly ever are
        weights = widened(part).numpy()
        if (common := common_divisor(weights)) == 0:
            return None
    scales = (as_scale(common / multiple) for multiple in range(1, MAX_DIVISOR + 1))
    scale = next((scale for k, scale in enumerate(scales, 1) if k * scale == common), None)
    return Rounded(quantize(weights, scale, math.inf), PerTensorScale(scale)) if scale else None


def widened(tensor: Tensor) -> Tensor:
    """A tensor's numbers, flat, in float32, or float64 if that is its type."""
    return tensor.to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).reshape(-1)


def as_scale(value: float) -> float:
    """`value` ≥ 0 rounded down to a bfloat16, the form in which files hold scales."""
    bits = np.float32(min(value, MAX_SCALE)).view(np.uint32)
    return float((bits & np.uint32(0xFFFF0000)).view(np.float32))


@kernel
def moments(weights: Floats) -> tuple[float, int, float]:
    """Σw², the number of weights other than zero, and max |w|."""
    energy, n_nonzero, largest = 0.0, 0, 0.0
    for w in weights:
        x = abs(np.float64(w))
        energy += x * x
        if x > 0:
            n_nonzero += 1
        largest = max(largest, x)
    return energy, n_nonzero, largest


@kernel
def common_divisor(weights: Floats) -> float:
    """The largest number that all are multiples of; 1 for zeros, 0 if it is too small to be a scale.

    Euclid's algorithm: remainders of floats are exact. It ends after a few weights that are on no grid.
    """
    common, largest = 0.0, 0.0
    for w in weights:
        x = abs(np.float64(w))
        if not x < np.inf or (x == 0 and np.copysign(1.0, w) < 0):  # a grid has no −0
            return 0.0
        largest = max(largest, x)
        while x > 0:
            common, x = x, np.fmod(common, x)
            if largest > common * MAX_MULTIPLES:
                return 0.0
    return common if largest > 0 else 1.0


@kernel
def squared_error(weights: Floats, scale: float) -> float:
    """Σ(w − ŵ)² on the grid of `scale`."""
    total, inverse = 0.0, 1.0 / scale
    for w in weights:
        x = np.float64(w)
        e = x - np.rint(x * inverse) * scale
        total += e * e
    return total


@kernel
def quantize(weights: Floats, scale: float, largest: float) -> NDArray[np.int32]:
    """The nearest integers q, or the next towards zero where |q|·scale would exceed `largest`."""
    q = np.empty(weights.size, np.int32)
    inverse = 1.0 / scale
    for i in range(weights.size):
        x = np.rint(np.float64(weights[i]) * inverse)
        if abs(x) * scale > largest:
            x -= np.sign(x)
        q[i] = np.int32(x)
    return q
