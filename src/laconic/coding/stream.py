"""An integer stream: flat integers under the model that codes them shortest.

Its first byte tells the model; `docs/format.md`, "Integer streams" and "Static streams", is the specification. Before
the model, columns may be predicted from the columns before them; in convolutions, weights from those before them in the
kernel. A static stream is the model's side information, the coded symbols and the escapes; its layout is in one place
for writing (`write_symbols`) and one for reading (`read_symbols`), with the bytes that each part takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from laconic.coding import adaptive, bitio, rans
from laconic.coding.bitio import Cursor, Pieces, unzigzag, varint, zigzag
from laconic.coding.fit import RAREST, fit
from laconic.coding.layout import Layout
from laconic.coding.prediction import MAX_COEFFICIENT, MAX_COLUMNS, MAX_SHIFT, Predictor, can_predict, predictor
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, MAX_CLASSES, RESOLUTIONS, Formula, Levels, StaticModel
from laconic.core.jit import F32, I32, INT32_MAX, INT32_MIN, U8, U16, U64

ADAPTIVE, PREDICTED = 0x2F, 0x1F
BY_FORMULA, BY_COLUMN = 1 << 6, 1 << 7  # in a static stream's second byte
MAX_FORMULA_WIDTH = 4096  # integers in a table that a few bytes describe, so that these cannot take long
SMALL = 1 << 15  # bytes above which a few percent are not worth a hundred times the time


def write(q: I32, layout: Layout) -> bytes:
    """Code the flat integers `q`, one at least, which lie as `layout` says."""
    model, n_bits = fit(q, layout)
    small = _is_small(q, n_bits)
    predicted = _write_predicted(q, layout, math.inf if small else n_bits)
    if predicted and not small:
        return predicted
    plain = _write(q, model, layout)
    return min(plain, predicted or plain, key=len)


def _write_predicted(q: I32, layout: Layout, max_bits: float) -> bytes | None:
    """A predicted stream, if static tables make it shorter than `max_bits`; None if nothing predicts."""
    lines = q.reshape(-1, layout.n_predicting)
    found = predictor(lines)
    left = found.residuals(lines) if found else None
    if not found or left is None:
        return None
    left, flat = left.ravel(), found.flat
    in_line = Layout(1, flat.size)
    coefficients = _write(flat, fit(flat, in_line)[0], in_line, SMALL >> 3)
    model, n_bits = fit(left, layout)
    if n_bits + 8 * len(coefficients) >= max_bits:
        return None
    head = bytes([PREDICTED, found.shift]) + varint(len(coefficients))
    return head + coefficients + _write(left, model, layout)


def _is_small(q: I32, n_bits: float, small: int = SMALL) -> bool:
    """Whether an adaptive model is worth its time for integers that take `n_bits` under static tables."""
    return n_bits <= 8 * small and q.size <= adaptive.MAX_INTEGERS


def _write(q: I32, model: StaticModel, layout: Layout, small: int = SMALL) -> bytes:
    stream = write_under(model, q)
    if not _is_small(q, 8 * len(stream), small):
        return stream
    return min(stream, bytes([ADAPTIVE]) + adaptive.encode(q, layout), key=len)


def write_static(q: I32, layout: Layout, rarest: tuple[int, ...] = RAREST) -> bytes:
    """Code the flat integers `q` under the static model that fits best; the arguments are those of `fit`."""
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
    classes, of = (model.row_class, model.column_drop), model.tables
    log2_lanes, states, words = rans.encode(q, model.lo, classes, model.frequencies, model.precision)
    rice_order, tables = of.coded()
    n_classes = len(model.frequencies)
    kind = BY_FORMULA if isinstance(of, Formula) else RESOLUTIONS.index(of.resolution) << 4
    shape = model.precision | kind | (BY_COLUMN if model.column_drop.size else 0)
    return [
        bytes([log2_lanes | n_classes - 1 << 4, shape, escape_order | rice_order << 5]),
        varint(zigzag(model.lo)) + varint(model.width - 1) + tables,
        row_labels or (_write_labels(model.row_class) if n_classes > 1 else b""),
        _write_labels(model.column_drop) if model.column_drop.size else b"",
        varint(words.size) + states.astype("<u4").tobytes(),
        words.astype("<u2", copy=False).view(np.uint8).data,
    ]


def _write_labels(labels: U8) -> bytes:
    """A stream of its own, of one class."""
    return write_static(labels.astype(np.int32), Layout(1, labels.size), rarest=(0,))


def read(source: Cursor, layout: Layout) -> I32:
    """Decode the integers, one at least, of the stream that fills `source`.

    FormatError if it violates the specification; nothing larger than the output is allocated.
    """
    if _next(source) != PREDICTED:
        return _read(source, layout)
    found = _read_predictor(source, layout)
    q = found.integers(_read(source, layout).reshape(-1, len(found.coefficients)))
    if q is None:
        raise source.error("integers of 32 bits", "a larger one")
    return q.ravel()


def _read(source: Cursor, layout: Layout) -> I32:
    if _next(source) == ADAPTIVE:
        source.byte()
        return adaptive.decode(source, layout)
    symbols = read_symbols(source, layout)
    model, escapes = symbols.model, source.rest()
    q = np.empty(layout.n, np.int32)
    symbols.decode(q, source)
    outside = np.zeros(0, np.int64)
    if model.has_escapes:
        outside = np.flatnonzero(q == np.int64(model.lo + model.width).astype(np.int32))  # it may wrap
    codes = np.empty(outside.size, np.int64)
    n_bits = bitio.read_golomb(escapes, symbols.escape_order, codes)
    whole = n_bits >= 0 and bitio.padding_is_zero(escapes, n_bits)
    source.expect(whole, f"{outside.size} escape codes and nothing after", "others")
    values = np.where(codes % 2 == 0, model.lo + model.width + codes // 2, model.lo - 1 - codes // 2)
    in_range = (values >= INT32_MIN) & (values <= INT32_MAX)
    source.expect(in_range.all(), "integers of 32 bits", "a larger one")
    q[outside] = values
    return q


def _read_predictor(source: Cursor, layout: Layout) -> Predictor:
    n_columns = layout.n_predicting
    n_rows = layout.n // n_columns
    _, shift = source.take(2)
    possible = can_predict(n_rows, n_columns)
    source.expect(possible, f"2 to {MAX_COLUMNS} columns of more rows", f"{n_columns}, {n_rows}")
    source.expect(shift <= MAX_SHIFT, f"a shift to {MAX_SHIFT}", shift)
    inner = Cursor(source.take(source.varint()), source.place)
    flat = _read(inner, Layout(1, n_columns * (n_columns + 1) // 2))
    largest = max(-int(flat.min()), int(flat.max()))
    source.expect(largest <= MAX_COEFFICIENT, f"coefficients of at most {MAX_COEFFICIENT}", "a larger one")
    return Predictor.from_flat(shift, n_columns, flat)


class Symbols(NamedTuple):
    """A static stream but for its escapes."""

    model: StaticModel
    escape_order: int  # of their Exp-Golomb code
    states: U64
    words: U16
    parts: Mapping[str, int]  # part → bytes

    def decode(self, q: U8 | I32, source: Cursor) -> None:
        """Fill `q`; FormatError if the words do not fit."""
        model = self.model
        slots, classes = rans.unfold(model.frequencies, model.precision), (model.row_class, model.column_drop)
        fits = rans.decode(self.states, self.words, classes, slots, model.lo, q)
        source.expect(fits, "words that decode to the end", "too few, too many, or damaged ones")


def read_symbols(source: Cursor, layout: Layout, max_classes: int = MAX_CLASSES) -> Symbols:
    """The inverse of `write_symbols`; nothing is decoded yet."""
    begin = source.at
    lanes, shape, orders = source.take(3)
    n_classes, precision, resolution = (lanes >> 4) + 1, shape & 15, RESOLUTIONS[shape >> 4 & 3]
    by_formula, by_column = shape & BY_FORMULA, shape & BY_COLUMN
    lo, width = unzigzag(source.varint()), source.varint() + 1
    in_range = n_classes <= max_classes and lanes & 15 <= 8 and precision >= 8 and width < 1 << precision
    source.expect(in_range, "a stream header", "values out of range")
    agree = not (by_formula and resolution != 1) and not (by_column and n_classes == 1)
    source.expect(agree, "a formula without a resolution, columns with classes", f"shape {shape:#x}")
    few = not by_formula or width <= MAX_FORMULA_WIDTH
    source.expect(few, f"at most {MAX_FORMULA_WIDTH} integers by a formula", width)
    in_range = INT32_MIN <= lo <= INT32_MAX - width + 1
    source.expect(in_range, "a table of 32-bit integers", f"one from {lo}, {width} wide")
    tables_at = source.at
    if by_formula:
        tables = Formula.read(source, n_classes, orders >> 5)
    else:
        tables = Levels.read(source, (n_classes, width + 1), resolution, orders >> 5)
    labels_at = source.at
    row_class = np.zeros(layout.n_rows, np.uint8)
    if n_classes > 1:
        row_class = _read_labels(source, layout.n_rows, n_classes)
    column_drop = _read_labels(source, layout.n_columns, n_classes) if by_column else ALL_COLUMNS_ALIKE
    model = StaticModel(lo, width, tables, precision, row_class, column_drop)
    source.expect(model.is_valid, "tables of frequencies", "an empty or overfull one")
    words_at, n_words = source.at, source.varint()
    states = np.frombuffer(source.take(4 << (lanes & 15)), "<u4").astype(np.uint64)
    lowest = states.min()
    source.expect(lowest >= rans.LOWEST_STATE, f"states of at least {rans.LOWEST_STATE}", lowest)
    words = np.frombuffer(source.take(2 * n_words), "<u2").astype(np.uint16, copy=False)
    parts = {"code header": tables_at - begin, "tables": labels_at - tables_at, "classes": words_at - labels_at}
    return Symbols(model, orders & 31, states, words, parts | {"weights": source.at - words_at})


def _read_labels(source: Cursor, n: int, n_classes: int) -> U8:
    symbols = read_symbols(source, Layout(1, n), max_classes=1)
    source.expect(not symbols.model.has_escapes, "labels without escapes", "an escape symbol")
    labels = np.empty(n, np.int32)
    symbols.decode(labels, source)
    lowest, highest = labels.min(), labels.max()
    source.expect(lowest >= 0 and highest < n_classes, f"labels below {n_classes}", f"{lowest} to {highest}")
    return labels.astype(np.uint8)


def measure(source: Cursor, layout: Layout) -> Mapping[str, int]:
    """Part → bytes of a stream of one integer or more, from its side information; `source` is used up."""
    parts = {"prediction": n} if (n := _skip_predictor(source)) else {}
    if _next(source) == ADAPTIVE:
        return parts | {"code header": 1, "weights": source.rest().size - 1}
    return parts | dict(read_symbols(source, layout).parts) | {"escapes": source.rest().size}


def symbol_model(source: Cursor) -> str:
    """The name of the symbol model of a stream that `read` accepts."""
    predicted = "predicted, " if _skip_predictor(source) else ""
    return predicted + ("adaptive" if _next(source) == ADAPTIVE else "static")


def _skip_predictor(source: Cursor) -> int:
    """Skip the coefficients, if there are any; the number of bytes skipped."""
    begin = source.at
    if _next(source) == PREDICTED:
        source.take(2)
        source.take(source.varint())
    return source.at - begin


def _next(source: Cursor) -> int | None:
    return source.data[source.at] if len(source) else None


@dataclass(frozen=True, eq=False)
class Prices:
    """Bits by the length of an integer's magnitude: 0; ±1; ±2 and ±3; ±4 to ±7; and so on."""

    tables: F32  # (tables, lengths)
    index: I32  # (integers,) the table of each


def prices(q: I32, layout: Layout, n_lengths: int) -> Prices:
    """What integers of 0 to `n_lengths` − 1 bits (1 to 32 lengths) cost in each place of the flat `q`.

    The prices are those of the model that codes the stream now. Changing one integer also moves the model, which they
    do not foresee.
    """
    model, n_bits = fit(q, layout)
    if _is_small(q, n_bits):
        return Prices(adaptive.prices(q, layout, n_lengths), np.arange(q.size, dtype=np.int32))
    bits = model.symbol_bits()
    lengths = np.array([abs(model.lo + s).bit_length() for s in range(model.width)] + [-1])
    # The mean of the integers of a length; if there is none, the escape.
    groups = [lengths == (n if n in lengths else -1) for n in range(n_lengths)]
    tables = np.stack([bits[:, group].mean(1) for group in groups], axis=1)
    drop = model.column_drop if model.column_drop.size else np.zeros(layout.n_columns, np.uint8)
    classes = model.row_class.astype(np.int32)[:, None]
    return Prices(tables.astype(np.float32), np.maximum(classes - drop, 0).astype(np.int32).ravel())
