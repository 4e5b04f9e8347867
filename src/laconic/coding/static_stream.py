"""A static stream: the model's side information, the coded symbols and the escapes.

`docs/format.md`, "Static streams", is the specification; this module is its layout, in one place for writing (`write`)
and one for reading (`read`), with the bytes that each part takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from laconic.coding import bitio, rans
from laconic.coding.bitio import Cursor, Pieces, unzigzag, varint, zigzag
from laconic.coding.fit import RAREST, fit
from laconic.coding.layout import Layout
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, MAX_CLASSES, RESOLUTIONS, Formula, Levels, StaticModel
from laconic.core.jit import I32, INT32_MAX, INT32_MIN, U8, U16, U64

BY_FORMULA, BY_COLUMN = 1 << 6, 1 << 7  # in a stream's second byte
MAX_FORMULA_WIDTH = 4096  # integers in a table that a few bytes describe, so that these cannot take long


def write(q: I32, layout: Layout, rarest: tuple[int, ...] = RAREST) -> bytes:
    """Code the flat integers `q` under the model that fits best; the arguments are those of `fit`."""
    return write_under(fit(q, layout, rarest)[0], q)


def write_under(model: StaticModel, q: I32) -> bytes:
    """Code the flat integers `q` under a model that `fit` found for them."""
    escaped = np.zeros(0, np.int64)
    if model.has_escapes:
        outside = q[(q < model.lo) | (q >= model.lo + model.width)].astype(np.int64)
        above = outside - (model.lo + model.width)
        escaped = np.where(above >= 0, 2 * above, 2 * (model.lo - 1 - outside) + 1)
    sample = escaped[:: max(1, escaped.size // 4096)]
    order = min(range(32), key=lambda order: bitio.golomb_bits(sample, order))
    escapes = np.zeros((bitio.golomb_bits(escaped, order) + 7) // 8, np.uint8)
    bitio.write_golomb(escaped, order, escapes)
    return b"".join([*write_symbols(model, q, order), escapes.tobytes()])


def write_symbols(model: StaticModel, q: U8 | I32, escape_order: int = 0, row_labels: bytes | None = None) -> Pieces:
    """All but the escapes; the rows' labels are coded here unless they are given, coded."""
    classes = (model.row_class, model.column_drop)
    log2_lanes, states, words = rans.encode(q, model.lo, classes, model.frequencies, model.precision)
    rice_order, tables = model.tables.coded()
    n_classes = len(model.frequencies)
    of = model.tables
    kind = BY_FORMULA if isinstance(of, Formula) else RESOLUTIONS.index(of.resolution) << 4
    return [
        bytes([log2_lanes | n_classes - 1 << 4]),
        bytes([model.precision | kind | (BY_COLUMN if model.column_drop.size else 0)]),
        bytes([escape_order | rice_order << 5]),
        varint(zigzag(model.lo)) + varint(model.width - 1) + tables,
        row_labels or (_write_labels(model.row_class) if n_classes > 1 else b""),
        _write_labels(model.column_drop) if model.column_drop.size else b"",
        varint(words.size) + states.astype("<u4").tobytes(),
        words.astype("<u2", copy=False).view(np.uint8).data,
    ]


def _write_labels(labels: U8) -> bytes:
    """A stream of its own, of one class."""
    return write(labels.astype(np.int32), Layout.flat(labels.size), rarest=(0,))


@dataclass(frozen=True)
class Symbols:
    """A stream but for its escapes."""

    model: StaticModel
    escape_order: int  # of their Exp-Golomb code
    states: U64
    words: U16
    parts: Mapping[str, int]  # part → bytes

    def decode(self, q: U8 | I32, source: Cursor) -> None:
        """Fill `q`; FormatError if the words do not fit."""
        model = self.model
        slots = rans.unfold(model.frequencies, model.precision)
        if not rans.decode(self.states, self.words, (model.row_class, model.column_drop), slots, model.lo, q):
            raise source.error("words that decode to the end", "too few, too many, or damaged ones")


def measure(source: Cursor, layout: Layout) -> Mapping[str, int]:
    """Part → bytes of a stream of one integer or more, from its side information; `source` is used up."""
    return {**read_symbols(source, layout).parts, "escapes": source.rest().size}


def read(source: Cursor, layout: Layout) -> I32:
    """Decode the integers, one at least, of the static stream that fills `source`.

    FormatError if it violates the specification; nothing larger than the output is allocated.
    """
    symbols = read_symbols(source, layout)
    model, escapes = symbols.model, source.rest()
    q = np.empty(layout.n, np.int32)
    symbols.decode(q, source)
    outside = np.zeros(0, np.int64)
    if model.has_escapes:
        outside = np.flatnonzero(q == np.int64(model.lo + model.width).astype(np.int32))  # it may wrap
    codes = np.empty(outside.size, np.int64)
    n_bits = bitio.read_golomb(escapes, symbols.escape_order, codes)
    if n_bits < 0 or not bitio.padding_is_zero(escapes, n_bits):
        raise source.error(f"{outside.size} escape codes and nothing after", "others")
    values = np.where(codes % 2 == 0, model.lo + model.width + codes // 2, model.lo - 1 - codes // 2)
    if values.size and (values.min() < INT32_MIN or values.max() > INT32_MAX):
        raise source.error("integers of 32 bits", "a larger one")
    q[outside] = values
    return q


def read_symbols(source: Cursor, layout: Layout, max_classes: int = MAX_CLASSES) -> Symbols:
    """The inverse of `write_symbols`; nothing is decoded yet."""
    begin = source.at
    lanes, shape, orders = source.take(3)
    n_classes, precision, resolution = (lanes >> 4) + 1, shape & 15, RESOLUTIONS[shape >> 4 & 3]
    lo, width = unzigzag(source.varint()), source.varint() + 1
    if n_classes > max_classes or lanes & 15 > 8 or precision < 8 or width >= 1 << precision:
        raise source.error("a stream header", "values out of range")
    if (shape & BY_FORMULA and resolution != 1) or (shape & BY_COLUMN and n_classes == 1):
        raise source.error("a formula without a resolution, columns with classes", f"shape {shape:#x}")
    if shape & BY_FORMULA and width > MAX_FORMULA_WIDTH:
        raise source.error(f"at most {MAX_FORMULA_WIDTH} integers by a formula", f"{width}")
    if not INT32_MIN <= lo <= INT32_MAX - width + 1:
        raise source.error("a table of 32-bit integers", f"one from {lo}, {width} wide")
    tables_at = source.at
    if shape & BY_FORMULA:
        tables = Formula.read(source, n_classes, orders >> 5)
    else:
        tables = Levels.read(source, (n_classes, width + 1), resolution, orders >> 5)
    labels_at = source.at
    row_class, column_drop = np.zeros(layout.n_rows, np.uint8), ALL_COLUMNS_ALIKE
    if n_classes > 1:
        row_class = _read_labels(source, layout.n_rows, n_classes)
    if shape & BY_COLUMN:
        column_drop = _read_labels(source, layout.n_columns, n_classes)
    model = StaticModel(lo, width, tables, precision, row_class, column_drop)
    if not model.is_valid:
        raise source.error("tables of frequencies", "an empty or overfull one")
    words_at, n_words = source.at, source.varint()
    states = np.frombuffer(source.take(4 << (lanes & 15)), "<u4").astype(np.uint64)
    if states.min() < rans.LOWEST_STATE:
        raise source.error(f"states of at least {rans.LOWEST_STATE}", f"{states.min()}")
    words = np.frombuffer(source.take(2 * n_words), "<u2").astype(np.uint16, copy=False)
    parts = {"code header": tables_at - begin, "tables": labels_at - tables_at, "classes": words_at - labels_at}
    return Symbols(model, orders & 31, states, words, parts | {"weights": source.at - words_at})


def _read_labels(source: Cursor, n: int, n_classes: int) -> U8:
    symbols = read_symbols(source, Layout.flat(n), max_classes=1)
    if symbols.model.has_escapes:
        raise source.error("labels without escapes", "an escape symbol")
    labels = np.empty(n, np.int32)
    symbols.decode(labels, source)
    if labels.min() < 0 or labels.max() >= n_classes:
        raise source.error(f"labels below {n_classes}", f"{labels.min()} to {labels.max()}")
    return labels.astype(np.uint8)
