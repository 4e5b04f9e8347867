"""Static symbol models: how frequent each integer is, in each class of rows and columns.

Rows of a weight matrix, and its columns, differ in scale by much more than entropy coding can ignore. Grouping them
into a few classes, each with a table of its own, saves more bits than the tables and the labels cost. A column's label
lowers the class of its row: in pruned networks the dead inputs lower it to the first.

A table is made from a level for each symbol, or from one formula for all.

*Levels* are log2 frequencies rounded to 1/r of an octave. An error of δ octaves costs only about (ln 2 / 2)·δ² bits a
symbol, so coarse tables suffice for small tensors.

A *formula* serves tensors too small to pay for levels: a spike at zero and a generalised Gaussian, under which the
integer x costs (|x| / s)^p bits more than the most frequent one. The scale s grows from class to class by one factor;
each class has its own spike.

Encoder and decoder derive the same integer frequencies from either, by integer arithmetic alone (`docs/format.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from laconic.coding import bitio
from laconic.coding.bitio import Cursor, bit_length, unzigzag, varint, zigzag
from laconic.core.jit import F64, I64, U8, kernel

EIGHTH_OCTAVES = np.rint(2 ** (16 + np.arange(9) / 8)).astype(np.int64)
RESOLUTIONS = (1, 2, 4, 8)
PRECISIONS = (12, 14)
MAX_CLASSES = 16
ALL_COLUMNS_ALIKE = np.zeros(0, np.uint8)
ESCAPE_BITS = 24.0  # about what an integer outside the tables takes beside the escape
PEAK = 30  # log2 of the weight of a formula's most frequent symbol
MAX_EXPONENT, MAX_SPIKE, MAX_ESCAPE = 63, 112, 240


@dataclass(frozen=True)
class Levels:
    """Logarithmic frequencies, symbol by symbol."""

    levels: I64  # (classes, width + 1), 0 for symbols that do not occur; the last column is the escape's
    resolution: int  # levels in an octave

    def weights(self, lo: int, width: int) -> I64:
        """(classes, width + 1) relative frequencies of `lo`, `lo` + 1, … and of the escape."""
        del lo, width
        octave, part = np.divmod(self.levels - 1, self.resolution)
        return np.where(self.levels > 0, EIGHTH_OCTAVES[part * (8 // self.resolution)] << np.maximum(octave, 0), 0)

    def codes(self) -> I64:
        """The non-negative integers that the file's Rice code holds."""
        return zigzag(np.diff(self.levels, prepend=2 * self.resolution)).ravel()

    def coded(self) -> tuple[int, bytes]:
        """The Rice code's order, and the tables' section of a file."""
        return _rice(self.codes())

    @classmethod
    def read(cls, source: Cursor, shape: tuple[int, int], resolution: int, rice_order: int) -> Levels:
        """The inverse of `coded`."""
        steps = _read_rice(source, shape[0] * shape[1], rice_order, 64 * resolution + 4)
        levels = 2 * resolution + steps.reshape(shape).cumsum(1)
        most = 16 * resolution + 1
        source.expect(levels.min() >= 0 and levels.max() <= most, f"levels of 0 to {most}", "others")
        return cls(levels, resolution)


@dataclass(frozen=True)
class Formula:
    """Generalised Gaussians with a spike at zero."""

    exponent: int  # p, in eighths
    scale: int  # log2 of the first class's s, in sixteenths
    growth: int  # log2 of the factor from one class's scale to the next, in sixteenths
    escape: int  # log2 of the escape's weight, in eighths; 0 if it does not occur
    spikes: I64  # (classes,) log2 of the factor by which zero exceeds the formula, in eighths

    def weights(self, lo: int, width: int) -> I64:
        """(classes, width + 1) relative frequencies of `lo`, `lo` + 1, … and of the escape."""
        return _formula_weights(lo, width, self.exponent, self.scale, self.growth, self.escape, self.spikes)

    def codes(self) -> I64:
        """The non-negative integers that the file's Rice code holds."""
        return zigzag(np.diff(self.spikes, prepend=0))

    def coded(self) -> tuple[int, bytes]:
        """The Rice code's order, and the tables' section of a file."""
        order, spikes = _rice(self.codes())
        return order, bytes([self.exponent]) + varint(zigzag(self.scale)) + bytes([self.growth, self.escape]) + spikes

    @classmethod
    def read(cls, source: Cursor, n_classes: int, rice_order: int) -> Formula:
        """The inverse of `coded`."""
        exponent, scale = source.byte(), unzigzag(source.varint())
        growth, escape = source.take(2)
        spikes = _read_rice(source, n_classes, rice_order, 4 * MAX_SPIKE).cumsum()
        in_range = 0 < exponent <= MAX_EXPONENT and abs(scale) <= 1024 and escape <= MAX_ESCAPE
        in_range = in_range and np.abs(spikes).max() <= MAX_SPIKE
        source.expect(in_range, "a formula's parameters", "values out of range")
        return cls(exponent, scale, growth, escape, spikes)


Tables: TypeAlias = Levels | Formula


@dataclass(frozen=True)
class StaticModel:
    """Frequency tables for integers in [lo, lo + width), by class of rows and columns."""

    lo: int
    width: int
    tables: Tables  # the last symbol is the escape
    precision: int  # frequencies sum to 2**precision
    row_class: U8  # (rows,)
    column_drop: U8  # (columns,) how much each column lowers the class, at most to the first; empty for no column

    @cached_property
    def frequencies(self) -> I64:
        """(classes, width + 1) integers, each row summing to 2**precision; 0 where a table is invalid."""
        return frequencies(self.tables.weights(self.lo, self.width), self.precision)

    @property
    def is_valid(self) -> bool:
        """Whether no table is empty or overfull: a reader refuses those."""
        return bool(self.frequencies.any(1).all())

    @property
    def has_escapes(self) -> bool:
        """Whether an integer may lie outside the tables."""
        return bool(self.frequencies[:, -1].any())

    def symbol_bits(self) -> F64:
        """(classes, width + 1): bits of each integer; the last are those of an escape with its integer."""
        bits = self.precision - np.log2(np.maximum(self.frequencies, 2.0**-8))
        bits[:, -1] = np.minimum(bits[:, -1], 2 * self.precision) + ESCAPE_BITS
        return bits


def _rice(codes: I64) -> tuple[int, bytes]:
    order = bitio.best_rice_order(codes)
    out = np.zeros((bitio.rice_bits(codes, order) + 7) // 8, np.uint8)
    bitio.write_rice(codes, order, out)
    return order, out.tobytes()


def _read_rice(source: Cursor, n_codes: int, order: int, largest: int) -> I64:
    """The signed numbers whose zigzag codes come next."""
    enough = n_codes <= 8 * len(source)  # each takes a bit at least
    source.expect(enough, f"tables of {n_codes} numbers", f"{len(source)} more bytes")
    codes = np.empty(n_codes, np.int64)
    rest = np.frombuffer(source.data[source.at :], np.uint8)
    n_bits = bitio.read_rice(rest, order, largest, codes)
    whole = n_bits >= 0 and bitio.padding_is_zero(rest[: (n_bits + 7) // 8], n_bits)
    source.expect(whole, "tables of Rice codes", "a code that is cut, too long, or padded with ones")
    source.take((n_bits + 7) // 8)
    return unzigzag(codes)


@kernel
def _log2(value: int) -> int:
    """Logarithm of `value` ≥ 1 and below 2^32, in 256ths, rounded down."""
    n = bit_length(value) - 1
    y = (value << 16) >> n
    for _ in range(8):
        y = (y * y) >> 16
        n *= 2
        if y >= 1 << 17:
            y >>= 1
            n += 1
    return n


@kernel
def _exp2(exponent: int) -> int:
    """2^(exponent / 256), for an exponent below about 44·256; 0 for a negative one."""
    if exponent < 0:
        return 0
    octave, part = exponent >> 8, exponent & 255
    low, high = EIGHTH_OCTAVES[part >> 5], EIGHTH_OCTAVES[(part >> 5) + 1]
    mantissa = low + ((high - low) * (part & 31) >> 5)
    return mantissa << (octave - 16) if octave >= 16 else mantissa >> (16 - octave)


@kernel
def _formula_weights(lo: int, width: int, exponent: int, scale: int, growth: int, escape: int, spikes: I64) -> I64:  # noqa: PLR0913 – numbers, as kernels take them
    weights = np.empty((spikes.size, width + 1), np.int64)
    for c in range(spikes.size):
        for i in range(width):
            x = abs(lo + i)
            if x == 0:
                weights[c, i] = max(1, _exp2(PEAK * 256 + 32 * spikes[c]))
            else:
                relative = (exponent * (_log2(x) - 16 * (scale + growth * c))) >> 3
                cost = _exp2(min(relative + 8 * 256, 14 * 256))  # in 256ths of a bit
                weights[c, i] = max(1, _exp2(PEAK * 256 - cost))
        weights[c, width] = _exp2(32 * escape) if escape else 0
    return weights


@kernel
def frequencies(weights: I64, precision: int) -> I64:
    """(classes, symbols) integers proportional to `weights`, each row summing to 2**precision.

    A positive weight gets a positive frequency. A row where that is impossible is zero.
    """
    total = 1 << precision
    f = np.zeros(weights.shape, np.int64)
    for c in range(weights.shape[0]):
        in_all = weights[c].sum()
        if in_all == 0:
            continue
        left, largest = total, 0
        for i in range(weights.shape[1]):
            if weights[c, i] > 0:
                f[c, i] = max(1, (weights[c, i] * total + in_all // 2) // in_all)
                left -= f[c, i]
                if f[c, i] > f[c, largest]:
                    largest = i
        f[c, largest] += left
        if f[c, largest] <= 0:
            f[c] = 0
    return f
