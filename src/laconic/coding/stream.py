"""An integer stream: flat integers under the model that codes them shortest.

Its first byte tells the model; `docs/format.md`, "Integer streams", is the specification. Before the model,
columns may be predicted from the columns before; in convolutions, a kernel's weights from those before in the
kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from laconic.coding import adaptive, static
from laconic.coding.bits import Cursor, varint
from laconic.coding.fit import fit
from laconic.coding.prediction import (
    MOST_COEFFICIENT,
    MOST_COLUMNS,
    MOST_SHIFT,
    Predictor,
    can_predict,
    predictor,
)
from laconic.coding.symbol_models import StaticModel
from laconic.jit import I32

ADAPTIVE, PREDICTED = 0x2F, 0x1F
SMALL = 1 << 15  # bytes above which a few percent are not worth a hundred times the time


def write(q: I32, n_rows: int = 1, kernel: tuple[int, ...] = ()) -> bytes:
    """Code integers.

    Args:
        q: flat, one integer at least, in `n_rows` rows of equal length.
        n_rows: the tensor's first dimension, if it is a matrix or more.
        kernel: its dimensions from the third on.
    """
    model, n_bits = fit(q, n_rows)
    small = is_small(q, n_bits)
    predicted = _write_predicted(q, n_rows, kernel, math.inf if small else n_bits)
    if predicted and not small:
        return predicted
    plain = _write(q, model, n_rows, kernel)
    return min(plain, predicted or plain, key=len)


def _write_predicted(q: I32, n_rows: int, kernel: tuple[int, ...], most: float) -> bytes | None:
    """A predicted stream, if static tables make it shorter than `most` bits; None where nothing predicts."""
    lines = q.reshape(-1, _width(q.size, n_rows, kernel))
    found = predictor(lines)
    left = found.residuals(lines) if found else None
    if not found or left is None:
        return None
    left, flat = left.ravel(), found.flat
    coefficients = _write(flat, fit(flat, 1)[0], 1, (), SMALL >> 3)
    model, n_bits = fit(left, n_rows)
    if n_bits + 8 * len(coefficients) >= most:
        return None
    head = bytes([PREDICTED, found.shift]) + varint(len(coefficients))
    return head + coefficients + _write(left, model, n_rows, kernel)


def is_small(q: I32, n_bits: float, small: int = SMALL) -> bool:
    """Whether an adaptive model is worth its time for integers that take `n_bits` by static tables."""
    return n_bits <= 8 * small and q.size <= adaptive.MOST_INTEGERS


def _write(q: I32, model: StaticModel, n_rows: int, kernel: tuple[int, ...], small: int = SMALL) -> bytes:
    stream = static.write_under(model, q)
    if not is_small(q, 8 * len(stream), small):
        return stream
    return min(stream, bytes([ADAPTIVE]) + adaptive.encode(q, n_rows, kernel), key=len)


def _width(n: int, n_rows: int, kernel: tuple[int, ...]) -> int:
    """How many integers predict each other."""
    n_kernel = math.prod(kernel)
    return n_kernel if n_kernel > 1 else n // n_rows


def read(source: Cursor, n: int, n_rows: int = 1, kernel: tuple[int, ...] = ()) -> I32:
    """Decode the `n` ≥ 1 integers of the stream that fills `source` to its end.

    Raises:
        FormatError: the stream violates the specification; nothing larger than the output is allocated.
    """
    if _next(source) != PREDICTED:
        return _read(source, n, n_rows, kernel)
    found = _read_predictor(source, n, _width(n, n_rows, kernel))
    left = _read(source, n, n_rows, kernel)
    q = found.integers(left.reshape(-1, len(found.coefficients)))
    if q is None:
        raise source.error("integers of 32 bits", "a larger one")
    return q.ravel()


def _read(source: Cursor, n: int, n_rows: int, kernel: tuple[int, ...]) -> I32:
    if _next(source) != ADAPTIVE:
        return static.read(source, n, n_rows)
    source.byte()
    return adaptive.decode(source, n, n_rows, kernel)


def _read_predictor(source: Cursor, n: int, n_columns: int) -> Predictor:
    _, shift = source.take(2)
    if not can_predict(n // n_columns, n_columns):
        raise source.error(f"2 to {MOST_COLUMNS} columns of more rows", f"{n_columns}, {n // n_columns}")
    if shift > MOST_SHIFT:
        raise source.error(f"a shift to {MOST_SHIFT}", f"{shift}")
    n_bytes = source.varint()
    inner = Cursor(source.take(n_bytes), source.place)
    flat = _read(inner, n_columns * (n_columns + 1) // 2, 1, ())
    if max(-int(flat.min()), int(flat.max())) > MOST_COEFFICIENT:
        raise source.error(f"coefficients of at most {MOST_COEFFICIENT}", "a larger one")
    return Predictor.from_flat(shift, n_columns, flat)


def measure(source: Cursor, n: int, n_rows: int = 1) -> Mapping[str, int]:
    """Part → bytes of a stream of `n` ≥ 1 integers, from its side information; `source` is used up."""
    parts = dict[str, int]()
    if _next(source) == PREDICTED:
        parts["prediction"] = _pass_predictor(source)
    if _next(source) == ADAPTIVE:
        return parts | {"code header": len(source.take(1)), "weights": len(source.take(len(source)))}
    return parts | dict(static.measure(source, n, n_rows))


def model(source: Cursor) -> str:
    """The name of the model of a stream that `read` accepts."""
    predicted = _next(source) == PREDICTED
    if predicted:
        _pass_predictor(source)
    name = "adaptive" if _next(source) == ADAPTIVE else "static"
    return f"predicted, {name}" if predicted else name


def _pass_predictor(source: Cursor) -> int:
    """Go on behind the coefficients; how many bytes that is."""
    begin = source.at
    source.take(2)
    source.take(source.varint())
    return source.at - begin


def _next(source: Cursor) -> int | None:
    return source.data[source.at] if len(source) else None
