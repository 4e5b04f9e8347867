"""An integer stream: flat integers under the model that codes them shortest.

Its first byte tells the model; `docs/format.md`, "Integer streams", is the specification. Before the model, columns may
be predicted from the columns before them; in convolutions, weights from those before them in the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from laconic.coding import adaptive, static_stream
from laconic.coding.bitio import Cursor, varint
from laconic.coding.fit import fit
from laconic.coding.layout import Layout
from laconic.coding.prediction import MAX_COEFFICIENT, MAX_COLUMNS, MAX_SHIFT, Predictor, can_predict, predictor
from laconic.coding.static_model import StaticModel
from laconic.core.jit import F32, I32

ADAPTIVE, PREDICTED = 0x2F, 0x1F
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
    in_line = Layout.flat(flat.size)
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
    stream = static_stream.write_under(model, q)
    if not _is_small(q, 8 * len(stream), small):
        return stream
    return min(stream, bytes([ADAPTIVE]) + adaptive.encode(q, layout), key=len)


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
    if _next(source) != ADAPTIVE:
        return static_stream.read(source, layout)
    source.byte()
    return adaptive.decode(source, layout)


def _read_predictor(source: Cursor, layout: Layout) -> Predictor:
    n_columns = layout.n_predicting
    n_rows = layout.n // n_columns
    _, shift = source.take(2)
    if not can_predict(n_rows, n_columns):
        raise source.error(f"2 to {MAX_COLUMNS} columns of more rows", f"{n_columns}, {n_rows}")
    if shift > MAX_SHIFT:
        raise source.error(f"a shift to {MAX_SHIFT}", f"{shift}")
    inner = Cursor(source.take(source.varint()), source.place)
    flat = _read(inner, Layout.flat(n_columns * (n_columns + 1) // 2))
    if max(-int(flat.min()), int(flat.max())) > MAX_COEFFICIENT:
        raise source.error(f"coefficients of at most {MAX_COEFFICIENT}", "a larger one")
    return Predictor.from_flat(shift, n_columns, flat)


def measure(source: Cursor, layout: Layout) -> Mapping[str, int]:
    """Part → bytes of a stream of one integer or more, from its side information; `source` is used up."""
    parts = {"prediction": n} if (n := _skip_predictor(source)) else {}
    if _next(source) == ADAPTIVE:
        return parts | {"code header": 1, "weights": len(source.take(len(source))) - 1}
    return parts | dict(static_stream.measure(source, layout))


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
