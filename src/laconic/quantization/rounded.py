"""Rounded tensors: integers, and a dequantizer that says which number each of them stands for.

There are three: one scale for the whole tensor, a scale for each row, and values whose indices the integers are. A new
one is one more class, and an entry of `laconic.codec.tensor.DEQUANTIZERS`. `docs/format.md`, "Grid", "Rows" and
"Codebook", specifies their bytes.
"""

# torch.from_numpy and NumPy's dtypes are typed in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from laconic.coding.bitio import Cursor, varint
from laconic.core.jit import F64, I32, kernel
from laconic.model.modules import raw_bytes

MAX_VALUES = 1 << 16  # of a codebook
N_SCALE_BYTES = 2


class OutOfRangeError(ValueError):
    """An integer stands for no number of the tensor's type."""


class Dequantizer(ABC):
    """Which number each integer of a tensor stands for."""

    @abstractmethod
    def dequantize(self, q: I32, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor that the flat integers `q` stand for; OutOfRangeError if one stands for no number of `dtype`."""

    @abstractmethod
    def coded(self) -> bytes:
        """The bytes before the integers in a file."""

    @classmethod
    @abstractmethod
    def read(cls, source: Cursor, dtype: torch.dtype, n_rows: int) -> Dequantizer:
        """The inverse of `coded`, for a tensor of `n_rows`; FormatError if the bytes violate the specification."""


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

    @override
    def coded(self) -> bytes:
        return _scale_bytes(self.scale)

    @override
    @classmethod
    def read(cls, source: Cursor, dtype: torch.dtype, n_rows: int) -> PerTensorScale:
        return cls(float(_read_scales(source, 1)[0]))


@dataclass(frozen=True, eq=False)
class PerRowScale(Dequantizer):
    """Each integer times the scale of its row, a positive bfloat16; a tensor of one dimension has one row."""

    scales: F64

    @override
    def dequantize(self, q: I32, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return _multiples(q, self.scales, dtype).reshape(shape)

    @override
    def coded(self) -> bytes:
        return _scale_bytes(self.scales)

    @override
    @classmethod
    def read(cls, source: Cursor, dtype: torch.dtype, n_rows: int) -> PerRowScale:
        return cls(_read_scales(source, n_rows))


@dataclass(frozen=True, eq=False)
class CodebookValues(Dequantizer):
    """Each integer, plus `origin`, is the index of one of the `values`, finite and ascending, of the tensor's type."""

    values: Tensor
    origin: int

    @override
    def dequantize(self, q: I32, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        lowest, highest = int(q.min()) + self.origin, int(q.max()) + self.origin
        if lowest < 0 or highest >= len(self.values):
            raise OutOfRangeError(f"expected indices below {len(self.values):,}, found {lowest:,} to {highest:,}")
        return self.values.index_select(0, torch.from_numpy(q + np.int32(self.origin))).reshape(shape)

    @override
    def coded(self) -> bytes:
        return varint(len(self.values)) + bytes(raw_bytes(self.values)) + varint(self.origin)

    @override
    @classmethod
    def read(cls, source: Cursor, dtype: torch.dtype, n_rows: int) -> CodebookValues:
        n = source.varint()
        source.expect(1 <= n <= MAX_VALUES, f"1 to {MAX_VALUES:,} values", f"{n:,}")
        values = torch.frombuffer(bytearray(source.take(n * dtype.itemsize)), dtype=dtype)
        exact = values.double()
        ascending = exact.isfinite().all() and (exact[1:] > exact[:-1]).all()
        source.expect(ascending, "finite values in ascending order", "others")
        origin = source.varint()
        source.expect(origin < n, f"an origin below {n:,}", f"{origin:,}")
        return cls(values, origin)


def _scale_bytes(scales: float | F64) -> bytes:
    """The upper halves of the scales' float32 bits, which are bfloat16s."""
    return (np.asarray(scales, np.float32).view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()


def _read_scales(source: Cursor, n: int) -> F64:
    bits = np.frombuffer(source.take(n * N_SCALE_BYTES), "<u2").astype(np.uint32)
    scales = (bits << np.uint32(16)).view(np.float32)
    wrong = scales[~((scales > 0) & (scales < math.inf))]
    if wrong.size:
        raise source.error("a positive finite scale", wrong[0])
    return scales.astype(np.float64)


def on_grid(q: I32, scales: float | F64, dtype: torch.dtype) -> Tensor:
    """q·Δ, flat, with one scale for all or a scale for each of as many rows of equal length."""
    weights = np.empty(q.size, np.float64 if dtype == torch.float64 else np.float32)
    _multiply(q, np.atleast_1d(np.asarray(scales, np.float64)), weights)
    return torch.from_numpy(weights).to(dtype)


def _multiples(q: I32, scales: F64, dtype: torch.dtype) -> Tensor:
    rows, largest = q.reshape(scales.size, -1), torch.finfo(dtype).max
    peaks = np.maximum(rows.max(1).astype(np.float64), -rows.min(1).astype(np.float64)) * scales
    if peaks.max() > largest:
        raise OutOfRangeError(f"expected values up to {largest:.5g}, found a larger q × scale")
    return on_grid(q, scales, dtype)


@kernel
def _multiply(q: I32, scales: F64, weights: NDArray[Any]) -> None:
    """Fill `weights` with q × the row's scale, exact in float64, rounded once to their type."""
    width = q.size // scales.size
    for row in range(scales.size):
        for i in range(row * width, (row + 1) * width):
            weights[i] = np.float64(q[i]) * scales[row]
