"""A static stream: the model's side information, the coded symbols and the escapes.

`docs/format.md`, "Static streams", is the specification; this module is its layout, in one place
for writing (`write`) and one for reading (`read`), with the bytes that each part takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from laconic.coding import bitio, rans
from laconic.coding.bitio import Cursor, Pieces, varint
from laconic.coding.fit import RAREST, fit
from laconic.coding.layout import Layout
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, MAX_CLASSES, StaticModel, best_golomb_order
from laconic.coding.tables import RESOLUTIONS, Formula, Levels, are_valid
from laconic.core.jit import I32, I64, INT32_MAX, INT32_MIN, U8, U16, U64

BY_FORMULA, BY_COLUMN = 1 << 6, 1 << 7  # in a stream's second byte
MAX_FORMULA_WIDTH = 4096  # integers in a table that a few bytes describe, so that these cannot take long


@dataclass(frozen=True)
class Parts:
    """A stream's bytes by what they are spent on."""

    code_header: int
    tables: int
    classes: int
    weights: int
    escapes: int


def write(q: I32, layout: Layout, rarest: tuple[int, ...] = RAREST) -> bytes:
    """Code the flat integers `q` under the model that fits best; the arguments are those of `fit`."""
    return write_under(fit(q, layout, rarest)[0], q)


def write_under(model: StaticModel, q: I32) -> bytes:
    """Code the flat integers `q` under a model that `fit` found for them."""
    frequencies, classes = model.frequencies, (model.row_class, model.column_drop)
    escaped = np.zeros(0, np.int64)
    if frequencies[:, -1].any():
        outside = (q < model.lo) | (q >= model.lo + model.width)
        escaped = _to_codes(q[outside].astype(np.int64), model)
    escape_order = best_golomb_order(escaped) if escaped.size else 0
    log2_lanes, states, words = rans.encode(q, model.lo, classes, frequencies, model.precision)
    head = write_model(model, log2_lanes, escape_order)
    return b"".join([head, *write_words(states, words), _golomb(escaped, escape_order)])


def write_model(model: StaticModel, log2_lanes: int, escape_order: int, row_labels: bytes | None = None) -> bytes:
    """What stands before the words; the rows' labels are coded here unless they are given, coded."""
    rice_order, tables = model.tables.coded()
    n_classes = model.tables.n_classes
    if isinstance(model.tables, Levels):
        shape = model.precision | RESOLUTIONS.index(model.tables.resolution) << 4
    else:
        shape = model.precision | BY_FORMULA
    return b"".join(
        [
            bytes([log2_lanes | n_classes - 1 << 4]),
            bytes([shape | (BY_COLUMN if model.column_drop.size else 0)]),
            bytes([escape_order | rice_order << 5]),
            varint(bitio.zigzag(model.lo)),
            varint(model.width - 1),
            tables,
            row_labels or (_write_labels(model.row_class) if n_classes > 1 else b""),
            _write_labels(model.column_drop) if model.column_drop.size else b"",
        ]
    )


def _write_labels(labels: U8) -> bytes:
    """A stream of its own, of one class."""
    return write(labels.astype(np.int32), Layout.flat(labels.size), rarest=(0,))


def _to_codes(q: I64, model: StaticModel) -> I64:
    above = q - (model.lo + model.width)
    return np.where(above >= 0, 2 * above, 2 * (model.lo - 1 - q) + 1)


def _from_codes(codes: I64, model: StaticModel) -> I64:
    return np.where(codes % 2 == 0, model.lo + model.width + codes // 2, model.lo - 1 - codes // 2)


def _golomb(codes: I64, order: int) -> bytes:
    out = np.zeros((bitio.golomb_bits(codes, order) + 7) // 8, np.uint8)
    bitio.write_golomb(codes, order, out)
    return out.tobytes()


@dataclass(frozen=True)
class Header:
    """What stands before a stream's symbols."""

    model: StaticModel
    log2_lanes: int
    escape_order: int


def measure(source: Cursor, layout: Layout) -> Mapping[str, int]:
    """Part → bytes of a stream of one integer or more, from its side information; `source` is used up."""
    parts = vars(_sections(source, layout)[1])
    return {name.replace("_", " "): n_bytes for name, n_bytes in parts.items()}


def read(source: Cursor, layout: Layout) -> I32:
    """Decode the integers, one at least, of the static stream that fills `source` to its end.

    Raises:
        FormatError: the stream violates the specification; nothing larger than the
            output is allocated.
    """
    (header, states, words, escapes), _ = _sections(source, layout)
    return _decode(header, states, words, escapes, layout.n, source)


def _sections(source: Cursor, layout: Layout) -> tuple[tuple[Header, U64, U16, U8], Parts]:
    begin = source.at
    header, marks = read_header(source, layout)
    before = source.at
    states, words = read_words(source, header.log2_lanes)
    after = source.at
    escapes = np.frombuffer(source.take(len(source)), np.uint8)
    parts = Parts(
        code_header=marks[0] - begin,
        tables=marks[1] - marks[0],
        classes=before - marks[1],
        weights=after - before,
        escapes=escapes.size,
    )
    return (header, states, words, escapes), parts


def write_words(states: U64, words: U16) -> Pieces:
    """The lanes' states and the words, as `read_words` expects them."""
    head = varint(words.size) + states.astype("<u4").tobytes()
    return [head, words.astype("<u2", copy=False).view(np.uint8).data]


def read_words(source: Cursor, log2_lanes: int) -> tuple[U64, U16]:
    """The lanes' states and the words."""
    n_words = source.varint()
    states = np.frombuffer(source.take(4 << log2_lanes), "<u4").astype(np.uint64)
    if states.min() < rans.LOWEST_STATE:
        raise source.error(f"states of at least {rans.LOWEST_STATE}", f"{states.min()}")
    return states, np.frombuffer(source.take(2 * n_words), "<u2").astype(np.uint16, copy=False)


def _decode(header: Header, states: U64, words: U16, escapes: U8, n: int, source: Cursor) -> I32:
    model = header.model
    q = np.empty(n, np.int32)
    tables = rans.unfold(model.frequencies, model.precision)
    classes = (model.row_class, model.column_drop)
    if not rans.decode(states, words, classes, tables, model.lo, q):
        raise source.error("words that decode to the end", "too few, too many, or damaged ones")
    outside = np.zeros(0, np.int64)
    if model.frequencies[:, -1].any():
        outside = np.flatnonzero(q == np.int64(model.lo + model.width).astype(np.int32))  # it may wrap
    codes = np.empty(outside.size, np.int64)
    n_bits = bitio.read_golomb(escapes, header.escape_order, codes)
    if n_bits < 0 or not bitio.padding_is_zero(escapes, n_bits):
        raise source.error(f"{outside.size} escape codes and nothing after", "others")
    values = _from_codes(codes, model)
    if values.size and (values.min() < INT32_MIN or values.max() > INT32_MAX):
        raise source.error("integers of 32 bits", "a larger one")
    q[outside] = values
    return q


def read_header(source: Cursor, layout: Layout, max_classes: int = MAX_CLASSES) -> tuple[Header, tuple[int, int]]:
    """What stands before the words, and where in it the tables and the labels begin."""
    lanes, shape, orders = source.take(3)
    n_classes, precision, resolution = (lanes >> 4) + 1, shape & 15, RESOLUTIONS[shape >> 4 & 3]
    lo, width = bitio.unzigzag(source.varint()), source.varint() + 1
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
    if not are_valid(model.frequencies):
        raise source.error("tables of frequencies", "an empty or overfull one")
    return Header(model, lanes & 15, orders & 31), (tables_at, labels_at)


def _read_labels(source: Cursor, n: int, n_classes: int) -> U8:
    header, _ = read_header(source, Layout.flat(n), max_classes=1)
    if header.model.frequencies[:, -1].any():
        raise source.error("labels without escapes", "an escape symbol")
    states, words = read_words(source, header.log2_lanes)
    labels = _decode(header, states, words, np.zeros(0, np.uint8), n, source)
    if labels.min() < 0 or labels.max() >= n_classes:
        raise source.error(f"labels below {n_classes}", f"{labels.min()} to {labels.max()}")
    return labels.astype(np.uint8)
