"""Rounded tensors: integers, and a dequantizer that says which number each of them stands for.

There are three: one scale for the whole tensor, a scale for each row, and values whose indices the integers are.
`laconic.codec.rounded_chunks` writes them to files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from laconic.core.jit import F64, I32, kernel

MAX_VALUES = 1 << 16  # of a codebook


class OutOfRangeError(ValueError):
    """An integer stands for no number of the tensor's type."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected, self.found = expected, found


class Dequantizer(ABC):
    """Which number each integer of a tensor stands for."""

    @abstractmethod
    def dequantize(self, q: I32, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor that the flat integers `q` stand for; OutOfRangeError if one stands for no number of `dtype`."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """A tensor's integers, flat, and which numbers they stand for."""

    q: I32
    dequantizer: Dequantizer


@dataclass(frozen=True, eq=False)
class PerTensorScale(Dequantizer):
    """Each integer times one scale Δ, a positive bfloat16."""

    scale: float

    @override
    def dequantize(self, q: I32, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return _multiples(q, np.array([self.scale]), dtype).reshape(shape)


@dataclass(frozen=True, eq=False)
class PerRowScale(Dequantizer):
    """Each integer times the scale of its row, a positive bfloat16; a tensor of one dimension has one row."""

    scales: F64

    @override
    def dequantize(self, q: I32, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return _multiples(q, self.scales, dtype).reshape(shape)


@dataclass(frozen=True, eq=False)
class CodebookValues(Dequantizer):
    """Each integer, plus `origin`, is the index of one of the `values`, finite and ascending, of the tensor's type."""

    values: Tensor
    origin: int

    @override
    def dequantize(self, q: I32, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        lowest, highest = int(q.min()) + self.origin, int(q.max()) + self.origin
        if lowest < 0 or highest >= len(self.values):
            raise OutOfRangeError(f"indices below {len(self.values):,}", f"{lowest:,} to {highest:,}")
        return self.values.index_select(0, torch.from_numpy(q + np.int32(self.origin))).reshape(shape)


def on_grid(q: I32, scales: float | F64, dtype: torch.dtype) -> Tensor:
    """q·Δ, flat, with one scale for all or a scale for each of as many rows of equal length."""
    weights = np.empty(q.size, np.float64 if dtype == torch.float64 else np.float32)
    _multiply(q, np.atleast_1d(np.asarray(scales, np.float64)), weights)
    return torch.from_numpy(weights).to(dtype)


def _multiples(q: I32, scales: F64, dtype: torch.dtype) -> Tensor:
    rows, largest = q.reshape(scales.size, -1), torch.finfo(dtype).max
    peaks = np.maximum(rows.max(1).astype(np.float64), -rows.min(1).astype(np.float64)) * scales
    if peaks.max() > largest:
        raise OutOfRangeError(f"values up to {largest:.5g}", "a larger q × scale")
    return on_grid(q, scales, dtype)


@kernel
def _multiply(q: I32, scales: F64, weights: NDArray[Any]) -> None:
    """Fill `weights` with q × the row's scale, exact in float64, rounded once to their type."""
    width = q.size // scales.size
    for row in range(scales.size):
        for i in range(row * width, (row + 1) * width):
            weights[i] = np.float64(q[i]) * scales[row]
