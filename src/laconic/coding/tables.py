"""What a static model's tables are made from: a level for each symbol, or a formula for all.

*Levels* are log2 frequencies rounded to 1/r of an octave. Being off by δ octaves costs only about (ln 2 /
2)·δ² bits a symbol, so coarse tables suffice for small tensors.

A *formula* is for tensors to which levels are too dear: a spike at zero and a generalised Gaussian, by which
the integer x costs (|x| / s)^p bits more than the most frequent one. Classes differ in the scale s, which is
larger from each to the next by the same factor, and in their spikes.

Encoder and decoder derive the same integer frequencies from either, by integer arithmetic alone
(`docs/format.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from laconic.coding import bitio
from laconic.coding.bitio import Cursor, varint
from laconic.core.jit import I64, U8, kernel

EIGHTH_OCTAVES = np.array([65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194, 131072], np.int64)
RESOLUTIONS = (1, 2, 4, 8)
PEAK = 30  # log2 of the weight of a formula's most frequent symbol
MAX_EXPONENT, MAX_SPIKE, MAX_ESCAPE = 63, 112, 240


@dataclass(frozen=True)
class Levels:
    """Logarithmic frequencies, symbol by symbol.

    Attributes:
        levels: (classes, width + 1), 0 for symbols that do not occur; the last column is the escape's.
        resolution: levels in an octave.
    """

    levels: I64
    resolution: int

    @property
    def n_classes(self) -> int:
        """How many tables there are."""
        return len(self.levels)

    def weights(self, lo: int, width: int) -> I64:
        """(classes, width + 1) relative frequencies."""
        del lo, width
        return level_weights(self.levels, self.resolution)

    def codes(self) -> I64:
        """The non-negative integers that the file's Rice code holds."""
        return _differences(self.levels, 2 * self.resolution)

    def coded(self) -> tuple[int, bytes]:
        """The Rice code's order, and the tables' section of a file."""
        return _rice(self.codes())

    @classmethod
    def read(cls, source: Cursor, shape: tuple[int, int], resolution: int, rice_order: int) -> Levels:
        """The inverse of `coded`."""
        codes = _read_rice(source, shape[0] * shape[1], rice_order, 64 * resolution + 4)
        levels = _summed(codes.reshape(shape), 2 * resolution)
        if levels.min() < 0 or levels.max() > 16 * resolution + 1:
            raise source.error(f"levels of 0 to {16 * resolution + 1}", "others")
        return cls(levels, resolution)


@dataclass(frozen=True)
class Formula:
    """Generalised Gaussians with a spike at zero.

    Attributes:
        exponent: p, in eighths.
        scale: log2 of the first class's s, in sixteenths.
        growth: log2 of the factor from a class's scale to the next one's, in sixteenths.
        escape: how frequent the escape is, in eighths of an octave; 0: it does not occur.
        spikes: (classes,) how much more frequent zero is than the formula says, in eighths of an octave.
    """

    exponent: int
    scale: int
    growth: int
    escape: int
    spikes: I64

    @property
    def n_classes(self) -> int:
        """How many tables there are."""
        return len(self.spikes)

    def weights(self, lo: int, width: int) -> I64:
        """(classes, width + 1) relative frequencies."""
        return formula_weights(lo, width, self.exponent, self.scale, self.growth, self.escape, self.spikes)

    def codes(self) -> I64:
        """The non-negative integers that the file's Rice code holds."""
        return _differences(self.spikes[None], 0)

    def coded(self) -> tuple[int, bytes]:
        """The Rice code's order, and the tables' section of a file."""
        scale = varint(bitio.zigzag(self.scale))
        head = bytes([self.exponent]) + scale + bytes([self.growth, self.escape])
        order, spikes = _rice(self.codes())
        return order, head + spikes

    @classmethod
    def read(cls, source: Cursor, n_classes: int, rice_order: int) -> Formula:
        """The inverse of `coded`."""
        exponent, scale = source.byte(), bitio.unzigzag(source.varint())
        growth, escape = source.take(2)
        spikes = _summed(_read_rice(source, n_classes, rice_order, 4 * MAX_SPIKE)[None], 0)[0]
        in_range = 0 < exponent <= MAX_EXPONENT and abs(scale) <= 1024 and escape <= MAX_ESCAPE
        if not in_range or np.abs(spikes).max() > MAX_SPIKE:
            raise source.error("a formula's parameters", "values out of range")
        return cls(exponent, scale, growth, escape, spikes)


Tables: TypeAlias = Levels | Formula


@kernel
def _differences(rows: I64, first: int) -> I64:
    """Each number less the one before in its row, `first` before all, zigzagged as by `bits.zigzag`, flat."""
    codes = np.empty(rows.size, np.int64)
    for c in range(rows.shape[0]):
        before = first
        for i in range(rows.shape[1]):
            step = rows[c, i] - before
            codes[c * rows.shape[1] + i] = 2 * step if step >= 0 else -2 * step - 1
            before = rows[c, i]
    return codes


@kernel
def _summed(codes: I64, first: int) -> I64:
    """The inverse of `_differences`, for codes in rows."""
    rows = np.empty(codes.shape, np.int64)
    for c in range(codes.shape[0]):
        at = first
        for i in range(codes.shape[1]):
            code = codes[c, i]
            at += code >> 1 if code & 1 == 0 else -(code + 1 >> 1)
            rows[c, i] = at
    return rows


def _rice(codes: I64) -> tuple[int, bytes]:
    order = bitio.best_rice_order(codes)
    out = np.zeros((bitio.rice_bits(codes, order) + 7) // 8, np.uint8)
    bitio.write_rice(codes, order, out)
    return order, out.tobytes()


def _read_rice(source: Cursor, n_codes: int, order: int, largest: int) -> I64:
    if n_codes > 8 * len(source):  # each takes a bit at least
        raise source.error(f"tables of {n_codes} numbers", f"{len(source)} more bytes")
    codes = np.empty(n_codes, np.int64)
    rest: U8 = np.frombuffer(source.data[source.at :], np.uint8)
    n_bits = bitio.read_rice(rest, order, largest, codes)
    if n_bits < 0 or not bitio.padding_is_zero(rest[: (n_bits + 7) // 8], n_bits):
        raise source.error("tables of Rice codes", "a code that is cut, too long, or padded with ones")
    source.take((n_bits + 7) // 8)
    return codes


@kernel
def level_weights(levels: I64, resolution: int) -> I64:
    """The weights of levels; 0 for a level of 0."""
    weights = np.zeros(levels.shape, np.int64)
    for c in range(levels.shape[0]):
        for i in range(levels.shape[1]):
            if levels[c, i] > 0:
                octave, part = divmod(levels[c, i] - 1, resolution)
                weights[c, i] = EIGHTH_OCTAVES[part * (8 // resolution)] << octave
    return weights


@kernel
def _log2(value: int) -> int:
    """Of `value` ≥ 1 and below 2^32, in 256ths, rounded down."""
    n = 0
    while value >> (n + 1):
        n += 1
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
    """2^(exponent / 256) for an exponent below 44·256, about; 0 for negative ones."""
    if exponent < 0:
        return 0
    octave, part = exponent >> 8, exponent & 255
    low, high = EIGHTH_OCTAVES[part >> 5], EIGHTH_OCTAVES[(part >> 5) + 1]
    mantissa = low + ((high - low) * (part & 31) >> 5)
    return mantissa << (octave - 16) if octave >= 16 else mantissa >> (16 - octave)


@kernel
def formula_weights(lo: int, width: int, exponent: int, scale: int, growth: int, escape: int, spikes: I64) -> I64:  # noqa: PLR0913 – numbers, as kernels take them
    """(classes, width + 1) weights of the integers from `lo` on, and of the escape; see `Formula`."""
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
def are_valid(frequencies: I64) -> bool:
    """Whether there are frequencies for every class: a reader refuses tables that are empty or overfull."""
    return (frequencies.sum(1) > 0).all()


@kernel
def frequencies(weights: I64, precision: int) -> I64:
    """(classes, symbols) integers proportional to `weights`, each row summing to 2**precision.

    A positive weight has a positive frequency. Rows for which that is not possible are zero.
    """
    total = 1 << precision
    f = np.zeros(weights.shape, np.int64)
    for c in range(weights.shape[0]):
        in_all = 0
        for i in range(weights.shape[1]):
            in_all += weights[c, i]
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
