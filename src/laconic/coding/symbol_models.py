"""Static symbol models: which integers are how frequent, in which class of rows.

Rows of a weight matrix differ in scale by much more than entropy coding can ignore: grouping them into
a few classes, each with a table of its own, saves more bits than the tables and the rows' labels
cost. A table is sent as *levels*, log2 frequencies rounded to 1/r of an octave; being off by δ octaves costs
only about (ln 2 / 2)·δ² bits a symbol, so coarse tables suffice for small tensors. Encoder and decoder
derive the same integer frequencies from the levels (`frequencies`; `docs/format.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from laconic.coding.bits import golomb_bits, rice_bits
from laconic.jit import I32, I64, U8, U16, kernel

EIGHTH_OCTAVES = np.array([65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194], np.int64)
RESOLUTIONS = (1, 2, 4, 8)
PRECISIONS = (12, 14)
MOST_CLASSES = 16


@dataclass(frozen=True)
class StaticModel:
    """Frequency tables for integers in [lo, lo + width), by class of rows.

    Attributes:
        lo: the smallest integer in the tables.
        levels: (classes, width + 1) logarithmic frequencies; the last column is the escape's.
        resolution: levels in an octave.
        precision: frequencies sum to 2**precision.
        row_class: (rows,) the class of each row.
    """

    lo: int
    levels: I64
    resolution: int
    precision: int
    row_class: U8

    @property
    def width(self) -> int:
        """How many integers the tables hold."""
        return self.levels.shape[1] - 1

    def frequencies(self) -> I64:
        """(classes, width + 1) integers, each row summing to 2**precision; 0 where a table is invalid."""
        return np.stack([frequencies(row, self.resolution, self.precision) for row in self.levels])

    def table_codes(self) -> I64:
        """The levels as the non-negative integers that the file's Rice code holds."""
        before = np.empty_like(self.levels)
        before[:, 0] = 2 * self.resolution
        before[:, 1:] = self.levels[:, :-1]
        return zigzagged((self.levels - before).ravel())


def zigzagged(values: I64) -> I64:
    """Map 0, −1, 1, −2 and so on to 0, 1, 2, 3, element by element."""
    return np.where(values >= 0, 2 * values, -2 * values - 1)


def unzigzagged(codes: I64) -> I64:
    """The inverse of `zigzagged`."""
    return np.where(codes % 2 == 0, codes // 2, -(codes + 1) // 2)


def levels_from_codes(codes: I64, n_classes: int, resolution: int) -> I64:
    """The inverse of `StaticModel.table_codes`."""
    steps = unzigzagged(codes).reshape(n_classes, -1)
    return 2 * resolution + np.cumsum(steps, axis=1)


@kernel
def frequencies(levels: I64, resolution: int, precision: int) -> I64:
    """Integer frequencies of one table; all zero if the levels describe none."""
    total = 1 << precision
    f = np.zeros(levels.size, np.int64)
    weights = 0
    for i in range(levels.size):
        if levels[i] > 0:
            octave, part = (levels[i] - 1) // resolution, (levels[i] - 1) % resolution
            f[i] = EIGHTH_OCTAVES[part * (8 // resolution)] << octave
            weights += f[i]
    if weights == 0:
        return f
    left, largest = total, 0
    for i in range(levels.size):
        if f[i] > 0:
            f[i] = max(1, (f[i] * total + weights // 2) // weights)
            left -= f[i]
            if f[i] > f[largest]:
                largest = i
    f[largest] += left
    if f[largest] <= 0:
        f[:] = 0
    return f


def best_rice_order(codes: I64) -> int:
    """The order that codes `codes` in the fewest bits."""
    return min(range(8), key=lambda order: rice_bits(codes, order))


def best_golomb_order(codes: I64) -> int:
    """The order that codes `codes` in the fewest bits."""
    sample = codes[:: max(1, codes.size // 4096)]
    return min(range(32), key=lambda order: golomb_bits(sample, order))


@kernel
def class_histograms(q: I32, row_class: U8, n_classes: int, lo: int, width: int) -> I64:
    """Counts (classes, width + 1) of lo, lo + 1, …; the last column counts all others."""
    counts = np.zeros((n_classes, width + 1), np.int64)
    n_columns = q.size // row_class.size
    for row in range(row_class.size):
        mine = counts[row_class[row]]
        for i in range(row * n_columns, (row + 1) * n_columns):
            s = np.int64(q[i]) - lo
            mine[s if 0 <= s < width else width] += 1
    return counts


@kernel
def levels_and_bits(counts: I64, resolution: int, precision: int, levels: I64) -> float:
    """Fill one table's `levels` for `counts`; the ideal length in bits of coding the counts with them."""
    total = 0
    for c in counts:
        total += c
    for i in range(counts.size):
        levels[i] = 0
        if counts[i] > 0:
            log2_frequency = precision + np.log2(counts[i] / total)
            levels[i] = 1 + max(0, int(np.rint(resolution * log2_frequency)))
    if total == 0:  # a class without rows still needs a valid table
        levels[0] = 1
        return 0.0
    f = frequencies(levels, resolution, precision)
    bits = 0.0
    for i in range(counts.size):
        if counts[i] > 0:
            if f[i] == 0:
                return np.inf
            bits += counts[i] * (precision - np.log2(f[i]))
    return bits


@kernel
def to_symbols(q: I32, lo: int, width: int) -> U16:
    """0 … width − 1 for integers in the tables' range, `width` (the escape) for others."""
    symbols = np.empty(q.size, np.uint16)
    for i in range(q.size):
        s = np.int64(q[i]) - lo
        symbols[i] = s if 0 <= s < width else width
    return symbols


@kernel
def ideal_bits(symbols: U16, row_class: U8, frequencies: I64, precision: int) -> float:
    """Σ −log2 p of the symbols under the tables: what no coder with these tables can beat."""
    cost = precision - np.log2(np.maximum(frequencies, 1).astype(np.float64))
    n_columns = symbols.size // row_class.size
    total = np.float64(0)
    for row in range(row_class.size):
        mine = cost[row_class[row]]
        for i in range(row * n_columns, (row + 1) * n_columns):
            total += mine[symbols[i]]
    return float(total)
