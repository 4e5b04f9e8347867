"""What each integer of a stream costs, and what others would cost in its place.

They are the prices of the model that would code the stream now: changing one integer also moves the model,
which these do not foresee.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from laconic.coding import adaptive
from laconic.coding.fit import fit
from laconic.coding.layout import Layout
from laconic.coding.static_model import StaticModel
from laconic.coding.stream import is_small
from laconic.core.jit import F32, F64, I32

ESCAPE_BITS = 24.0  # about what an integer outside the tables takes beside the escape


@dataclass(frozen=True, eq=False)
class Prices:
    """Bits by the length of an integer's magnitude: 0; ±1; ±2 and ±3; ±4 to ±7; and so on.

    Attributes:
        tables: (tables, lengths).
        index: (integers,) the table of each integer.
    """

    tables: F32
    index: I32


def prices(q: I32, layout: Layout, n_lengths: int) -> Prices:
    """What integers of 0 to `n_lengths` − 1 bits (1 to 32 lengths) cost in each place of the flat `q`."""
    model, n_bits = fit(q, layout)
    if is_small(q, n_bits):
        each = adaptive.prices(q, layout, n_lengths)
        return Prices(each, np.arange(q.size, dtype=np.int32))
    bits = symbol_bits(model)
    classes = model.row_class.astype(np.int32)[:, None]
    drop = model.column_drop if model.column_drop.size else np.zeros(layout.n_columns, np.uint8)
    tables = np.stack([_of_length(bits, model.lo, n) for n in range(n_lengths)], axis=1)
    return Prices(tables.astype(np.float32), np.maximum(classes - drop, 0).astype(np.int32).ravel())


def _of_length(bits: F64, lo: int, n: int) -> F64:
    """(classes,) mean bits of the integers whose magnitude has `n` bits; if there is none, the escape's."""
    symbols = range(bits.shape[1] - 1)
    found = bits[:, [s for s in symbols if abs(lo + s).bit_length() == n]]
    return found.mean(1) if found.size else bits[:, -1]


def symbol_bits(model: StaticModel) -> F64:
    """(classes, symbols): bits of each symbol of a static model; the last is the escape with its integer."""
    bits = model.precision - np.log2(np.maximum(model.frequencies, 2.0**-8))
    bits[:, -1] = np.minimum(bits[:, -1], 2 * model.precision) + ESCAPE_BITS
    return bits
