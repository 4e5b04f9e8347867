"""An integer stream: a static model's side information, the coded symbols and the escapes.

`docs/format.md`, "Integer streams", is the specification; this module is its layout, in one place
for writing (`write`) and one for reading (`read`), with the bytes that each part takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from laconic.coding import bits, rans
from laconic.coding.bits import Cursor, varint
from laconic.coding.fit import fit
from laconic.coding.symbol_models import (
    MOST_CLASSES,
    RESOLUTIONS,
    StaticModel,
    best_golomb_order,
    best_rice_order,
    ideal_bits,
    levels_from_codes,
    to_symbols,
)
from laconic.jit import I32, I64, U8, U16, U64

LANE_OVERHEAD = 1000  # a lane's four bytes for at least this many times as many bytes of words
MOST_LOG2_LANES = 2  # more decode no faster, see LOG.md
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Parts:
    """A stream's bytes by what they are spent on."""

    code_header: int
    tables: int
    classes: int
    weights: int
    escapes: int


def write(q: I32, n_rows: int) -> bytes:
    """Code the flat integers `q` (one at least), in `n_rows` equal rows, under the model that fits best."""
    return _write(q, fit(q, n_rows))


def _write(q: I32, model: StaticModel) -> bytes:
    symbols = to_symbols(q, model.lo, model.width)
    escaped = _to_codes(q[symbols == model.width].astype(np.int64), model)
    escape_order = best_golomb_order(escaped) if escaped.size else 0
    frequencies = model.frequencies()
    payload = ideal_bits(symbols, model.row_class, frequencies, model.precision) / 8
    log2_lanes = int(np.clip(np.log2(payload / (4 * LANE_OVERHEAD) + 1e-9), 0, MOST_LOG2_LANES))
    states, words = rans.encode(symbols, model.row_class, frequencies, log2_lanes, model.precision)
    return b"".join(
        [
            _write_model(model, log2_lanes, escape_order),
            varint(words.size),
            states.astype("<u4").tobytes(),
            words.astype("<u2").tobytes(),
            _golomb(escaped, escape_order),
        ]
    )


def _write_model(
    model: StaticModel, log2_lanes: int, escape_order: int, classes: bytes | None = None
) -> bytes:
    codes = model.table_codes()
    rice_order = best_rice_order(codes)
    tables = np.zeros((bits.rice_bits(codes, rice_order) + 7) // 8, np.uint8)
    bits.write_rice(codes, rice_order, tables)
    n_classes = len(model.levels)
    log2_resolution = RESOLUTIONS.index(model.resolution)
    return b"".join(
        [
            bytes([log2_lanes | n_classes - 1 << 4]),
            bytes([model.precision | log2_resolution << 4]),
            bytes([escape_order | rice_order << 5]),
            varint(bits.zigzag(model.lo)),
            varint(model.width - 1),
            tables.tobytes(),
            classes or (_write_classes(model.row_class) if n_classes > 1 else b""),
        ]
    )


def _write_classes(row_class: U8) -> bytes:
    labels = row_class.astype(np.int32)
    return _write(labels, fit(labels, 1, rarest=(0,)))


def _to_codes(q: I64, model: StaticModel) -> I64:
    above = q - (model.lo + model.width)
    return np.where(above >= 0, 2 * above, 2 * (model.lo - 1 - q) + 1)


def _from_codes(codes: I64, model: StaticModel) -> I64:
    return np.where(codes % 2 == 0, model.lo + model.width + codes // 2, model.lo - 1 - codes // 2)


def _golomb(codes: I64, order: int) -> bytes:
    out = np.zeros((bits.golomb_bits(codes, order) + 7) // 8, np.uint8)
    bits.write_golomb(codes, order, out)
    return out.tobytes()


@dataclass(frozen=True)
class _Header:
    """What stands before a stream's symbols."""

    model: StaticModel
    log2_lanes: int
    escape_order: int
    frequencies: I64


def measure(source: Cursor, n_rows: int) -> Mapping[str, int]:
    """Part → bytes of a stream that is not empty, from its side information; `source` is used up."""
    parts = vars(_sections(source, n_rows)[1])
    return {name.replace("_", " "): n_bytes for name, n_bytes in parts.items()}


def read(source: Cursor, n: int, n_rows: int) -> I32:
    """Decode the `n` ≥ 1 integers of the stream that fills `source` to its end.

    Raises:
        FormatError: the stream violates the specification; nothing larger than the
            output is allocated.
    """
    (header, states, words, escapes), _ = _sections(source, n_rows)
    return _decode(header, states, words, escapes, n, source)


def _sections(source: Cursor, n_rows: int) -> tuple[tuple[_Header, U64, U16, U8], Parts]:
    begin = source.at
    header, marks = _read_header(source, n_rows)
    before = source.at
    states, words = _read_words(source, header.log2_lanes)
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


def _read_words(source: Cursor, log2_lanes: int) -> tuple[U64, U16]:
    n_words = source.varint()
    states = np.frombuffer(source.take(4 << log2_lanes), "<u4").astype(np.uint64)
    if states.min() < rans.LOWEST_STATE:
        raise source.error(f"states of at least {rans.LOWEST_STATE}", f"{states.min()}")
    return states, np.frombuffer(source.take(2 * n_words), "<u2").astype(np.uint16, copy=False)


def _decode(header: _Header, states: U64, words: U16, escapes: U8, n: int, source: Cursor) -> I32:
    model = header.model
    symbols = np.empty(n, np.uint16)
    slots = rans.unfold(header.frequencies, model.precision)
    if not rans.decode(states, words, model.row_class, slots, symbols):
        raise source.error("words that decode to the end", "too few, too many, or damaged ones")
    q = symbols.astype(np.int32)
    q += np.int32(model.lo)
    outside = np.flatnonzero(symbols == model.width)
    codes = np.empty(outside.size, np.int64)
    n_bits = bits.read_golomb(escapes, header.escape_order, codes)
    if n_bits < 0 or not bits.padding_is_zero(escapes, n_bits):
        raise source.error(f"{outside.size} escape codes and nothing after", "others")
    values = _from_codes(codes, model)
    if values.size and (values.min() < INT32.min or values.max() > INT32.max):
        raise source.error("integers of 32 bits", "a larger one")
    q[outside] = values
    return q


def _read_header(
    source: Cursor, n_rows: int, most_classes: int = MOST_CLASSES
) -> tuple[_Header, tuple[int, int]]:
    lanes, shape, orders = source.take(3)
    n_classes, precision, resolution = (lanes >> 4) + 1, shape & 15, RESOLUTIONS[shape >> 4 & 3]
    lo, width = bits.unzigzag(source.varint()), source.varint() + 1
    if n_classes > most_classes or lanes & 15 > 8 or precision < 8 or shape >> 6 or width >= 1 << precision:
        raise source.error("a stream header", "values out of range")
    if not INT32.min <= lo <= INT32.max - width + 1:
        raise source.error("a table of 32-bit integers", f"one from {lo}, {width} wide")
    tables_at = source.at
    levels = _read_tables(source, (n_classes, width + 1), resolution, orders >> 5)
    classes_at = source.at
    row_class = np.zeros(n_rows, np.uint8)
    if n_classes > 1:
        row_class = _read_classes(source, n_rows, n_classes)
    model = StaticModel(lo, levels, resolution, precision, row_class)
    frequencies = model.frequencies()
    if not frequencies.any(axis=1).all():
        raise source.error("tables of frequencies", "an empty or overfull one")
    return _Header(model, lanes & 15, orders & 31, frequencies), (tables_at, classes_at)


def _read_tables(source: Cursor, shape: tuple[int, int], resolution: int, rice_order: int) -> I64:
    n_codes = shape[0] * shape[1]
    if n_codes > 8 * len(source):  # each takes a bit at least
        raise source.error(f"tables of {n_codes} levels", f"{len(source)} more bytes")
    codes = np.empty(n_codes, np.int64)
    rest = np.frombuffer(source.data[source.at :], np.uint8)
    n_bits = bits.read_rice(rest, rice_order, 64 * resolution + 4, codes)
    if n_bits < 0 or not bits.padding_is_zero(rest[: (n_bits + 7) // 8], n_bits):
        raise source.error("tables of Rice codes", "a code that is cut, too long, or padded with ones")
    source.take((n_bits + 7) // 8)
    levels = levels_from_codes(codes, shape[0], resolution)
    if levels.min() < 0 or levels.max() > 16 * resolution + 1:
        raise source.error(f"levels of 0 to {16 * resolution + 1}", "others")
    return levels


def _read_classes(source: Cursor, n_rows: int, n_classes: int) -> U8:
    header, _ = _read_header(source, 1, most_classes=1)
    if header.frequencies[:, -1].any():
        raise source.error("row classes without escapes", "an escape symbol")
    states, words = _read_words(source, header.log2_lanes)
    labels = _decode(header, states, words, np.zeros(0, np.uint8), n_rows, source)
    if labels.min() < 0 or labels.max() >= n_classes:
        raise source.error(f"row classes below {n_classes}", f"{labels.min()} to {labels.max()}")
    return labels.astype(np.uint8)
