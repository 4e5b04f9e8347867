"""Static symbol models: which integers are how frequent, in which class of rows and columns.

Rows of a weight matrix, and its columns, differ in scale by much more than entropy coding can ignore:
grouping them into a few classes, each with a table of its own, saves more bits than the tables and the labels
cost. A column's label lowers the class of its row by so much: in pruned networks the inputs that are dead
lower it to the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from laconic.coding.bitio import golomb_bits
from laconic.coding.tables import Tables, frequencies
from laconic.core.jit import I32, I64, U8, kernel

PRECISIONS = (12, 14)
MAX_CLASSES = 16
ALL_COLUMNS_ALIKE = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class StaticModel:
    """Frequency tables for integers in [lo, lo + width), by class of rows and columns.

    Attributes:
        lo: the smallest integer in the tables.
        width: how many they hold.
        tables: their weights, of the escape last.
        precision: frequencies sum to 2**precision.
        row_class: (rows,) the class of each row.
        column_drop: (columns,) how much lower the class is in each column; empty if nowhere. The
            lowest class is the first.
    """

    lo: int
    width: int
    tables: Tables
    precision: int
    row_class: U8
    column_drop: U8

    @cached_property
    def frequencies(self) -> I64:
        """(classes, width + 1) integers, each row summing to 2**precision; 0 where a table is invalid."""
        return frequencies(self.tables.weights(self.lo, self.width), self.precision)


def best_golomb_order(codes: I64) -> int:
    """The order that codes `codes` in the fewest bits."""
    sample = codes[:: max(1, codes.size // 4096)]
    return min(range(32), key=lambda order: golomb_bits(sample, order))


@kernel
def class_histograms(q: I32, row_class: U8, column_drop: U8, n_classes: int, window: tuple[int, int]) -> I64:
    """Counts (classes, width + 1) of the window's lo, lo + 1, …; the last column counts all others."""
    lo, width = window
    counts = np.zeros((n_classes, width + 1), np.int64)
    n_columns = q.size // row_class.size
    for row in range(row_class.size):
        mine = counts[row_class[row]]
        for column in range(n_columns):
            s = np.int64(q[row * n_columns + column]) - lo
            if column_drop.size:
                mine = counts[max(np.int64(row_class[row]) - column_drop[column], 0)]
            mine[s if 0 <= s < width else width] += 1
    return counts
