"""Integer streams of bytes, fitted and coded at the speed of memory.

The layout is `static`'s. What differs is how the model is found: rows are ordered by their mean, cut into
eight groups of equally many, and neighbouring groups are merged while that saves bits; one pass over the
bytes counts all that this needs. Exponents of floats are the case in mind: their scale depends on the row,
and the mean orders scales.
"""

from __future__ import annotations

import numpy as np

from laconic.coding import rans
from laconic.coding.bitio import Cursor
from laconic.coding.fit import levels_for
from laconic.coding.layout import Layout
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, StaticModel
from laconic.coding.static_stream import read_header, read_words, write_model, write_words
from laconic.coding.tables import Levels, are_valid
from laconic.core.jit import I64, U8, kernel

PRECISION = 12
MAX_GROUPS = 8
MAX_CODED_SHARE = 0.99  # of a byte: what codes no shorter than this stays raw
SAMPLE = 1 << 14
TABLE_BITS = 3.0  # about, for each byte that occurs


def write(plane: U8, n_rows: int) -> bytes | None:
    """Code the bytes `plane` (not empty) in `n_rows` equal rows; None where that would hardly be shorter."""
    model = fit(plane, n_rows)
    if model is None:
        return None
    classes = b""
    if model.tables.n_classes > 1:
        counts = np.bincount(model.row_class)[None]
        classes = _write(model.row_class, _model(counts, np.zeros(1, np.uint8)), b"")
    out = _write(plane, model, classes)
    return out if len(out) < plane.size else None


def _write(plane: U8, model: StaticModel, classes: bytes) -> bytes:
    per_tensor = (model.row_class, ALL_COLUMNS_ALIKE)
    log2_lanes, states, words = rans.encode(plane, model.lo, per_tensor, model.frequencies, PRECISION)
    return b"".join([write_model(model, log2_lanes, 0, classes), *write_words(states, words)])


def read(source: Cursor, plane: U8, n_rows: int) -> None:
    """Fill `plane`, one byte at least, from the stream that fills `source` to its end.

    Raises:
        FormatError: the stream violates the specification, has escapes, or holds integers that are no bytes.
    """
    header, _ = read_header(source, Layout(n_rows, plane.size // n_rows))
    model = header.model
    if model.column_drop.size:
        raise source.error("bytes whose columns are alike", "drops of columns")
    if model.lo < 0 or model.lo + model.width > 256 or model.frequencies[:, -1].any():
        raise source.error("a table of bytes without escapes", f"one from {model.lo}, {model.width} wide")
    states, words = read_words(source, header.log2_lanes)
    if len(source):
        raise source.error("the stream's end", f"{len(source)} more bytes")
    tables = rans.unfold(model.frequencies, model.precision)
    if not rans.decode(states, words, (model.row_class, ALL_COLUMNS_ALIKE), tables, model.lo, plane):
        raise source.error("words that decode to the end", "too few, too many, or damaged ones")


def fit(plane: U8, n_rows: int) -> StaticModel | None:
    """The model for `plane`, by row classes; None where that would hardly code shorter, or not at all."""
    n_groups = min(MAX_GROUPS, max(1, n_rows // 4))
    row_group = np.zeros(n_rows, np.uint8)
    if n_groups > 1:
        order = np.argsort(_row_sums(plane, n_rows), kind="stable")
        row_group[order] = np.arange(n_rows) * n_groups // n_rows
    row_class, counts, bits = _merged(_histograms(plane, row_group, n_groups), row_group)
    if bits > 8 * MAX_CODED_SHARE * plane.size:
        return None
    found = _model(counts, row_class)
    return found if are_valid(found.frequencies) else None  # rounding up may overfill a table


def _model(counts: I64, row_class: U8) -> StaticModel:
    """Tables for `counts` (classes, symbols), without escapes."""
    lo, levels, resolution = _levels(counts)
    width = levels.shape[1] - 1
    return StaticModel(lo, width, Levels(levels, resolution), PRECISION, row_class, ALL_COLUMNS_ALIKE)


@kernel
def _levels(counts: I64) -> tuple[int, I64, int]:
    """The first symbol that occurs; levels from there to the last and for the escape; how many an octave.

    Rounding to 1/r octave costs (ln 2 / 24) / r² bits a symbol, doubling r a bit an entry.
    """
    lo, end = 0, counts.shape[1]
    while not counts[:, lo].any():
        lo += 1
    while not counts[:, end - 1].any():
        end -= 1
    within = np.zeros((counts.shape[0], end - lo + 1), np.int64)
    within[:, :-1] = counts[:, lo:end]
    n_each = within.sum() / np.count_nonzero(within)
    resolution = 8 if n_each > 735 else 4 if n_each > 184 else 2
    return lo, levels_for(within, resolution, PRECISION), resolution


@kernel
def least_bits(plane: U8) -> float:
    """Bits a byte by one table, from about SAMPLE bytes in runs of 64 spread evenly."""
    counts = np.zeros(256, np.int64)
    n, n_used = 0, 0
    stride = max(64, plane.size // (SAMPLE // 64))
    for begin in range(0, plane.size, stride):
        end = min(begin + 64, plane.size)
        for i in range(begin, end):
            counts[plane[i]] += 1
        n += end - begin
    bits = n * np.log2(n)
    for c in counts:
        if c > 0:
            bits -= c * np.log2(c)
            n_used += 1
    return bits / n + TABLE_BITS * n_used / plane.size


@kernel
def _row_sums(plane: U8, n_rows: int) -> I64:
    sums = np.zeros(n_rows, np.int64)
    n_columns = plane.size // n_rows
    for row in range(n_rows):
        of_row = plane[row * n_columns : (row + 1) * n_columns]
        total = np.uint32(0)  # 32 bits hold a block's sum, in wider vectors
        for i in range(of_row.size):
            total = np.uint32(total + of_row[i])
        sums[row] = total
    return sums


@kernel
def _histograms(plane: U8, row_group: U8, n_groups: int) -> I64:
    """(groups, 256) counts. Neighbours count in tables of their own: equal ones would wait for each other."""
    counts = np.zeros((4, n_groups, 256), np.uint32)
    n_columns, one, four = plane.size // row_group.size, np.uint32(1), np.uint64(4)
    for row in range(row_group.size):
        group = row_group[row]
        a, b, c, d = counts[0, group], counts[1, group], counts[2, group], counts[3, group]
        of_row = plane[row * n_columns : (row + 1) * n_columns]
        for k in range(of_row.size // 4):
            i = four * np.uint64(k)  # unsigned, so that it is not checked for being negative
            a[of_row[i]] += one
            b[of_row[i + np.uint64(1)]] += one
            c[of_row[i + np.uint64(2)]] += one
            d[of_row[i + np.uint64(3)]] += one
        for i in range(of_row.size // 4 * 4, of_row.size):
            a[of_row[i]] += one
    total = np.zeros((n_groups, 256), np.int64)
    for part in range(4):
        total += counts[part]
    return total


@kernel
def _code_bits(counts: I64, n_rows: int, all_rows: int) -> float:
    """What a class costs: its symbols, about TABLE_BITS for each that occurs, its rows' labels."""
    total, log_sum, n_used = 0, 0.0, 0
    for c in counts:
        if c > 0:
            total += c
            log_sum += c * np.log2(np.float64(c))
            n_used += 1
    if total == 0:
        return 0.0
    bits = total * np.log2(np.float64(total)) - log_sum + TABLE_BITS * n_used
    return bits + n_rows * np.log2(all_rows / n_rows)


@kernel
def _merged(counts: I64, row_group: U8) -> tuple[U8, I64, float]:
    """The class of each row, the classes' counts, and their bits, after merging groups while that saves bits.

    `counts` are those of the groups (groups, symbols); only neighbours are merged.
    """
    n, all_rows = len(counts), row_group.size
    sums, rows, first = counts.copy(), np.zeros(n, np.int64), np.arange(n)  # class k begins at group first[k]
    for group in row_group:
        rows[group] += 1
    own, joint = np.zeros(n), np.zeros(n)  # bits of class k, and of k and k + 1 as one
    for k in range(n):
        own[k] = _code_bits(sums[k], rows[k], all_rows)
    for k in range(n - 1):
        joint[k] = _code_bits(sums[k] + sums[k + 1], rows[k] + rows[k + 1], all_rows)
    while n > 1:
        best, saved = 0, -np.inf
        for k in range(n - 1):
            if own[k] + own[k + 1] - joint[k] > saved:
                best, saved = k, own[k] + own[k + 1] - joint[k]
        if saved < 0:
            break
        own[best] = joint[best]
        sums[best] += sums[best + 1]
        rows[best] += rows[best + 1]
        n -= 1
        for k in range(best + 1, n):
            own[k], joint[k], rows[k], first[k] = own[k + 1], joint[k + 1], rows[k + 1], first[k + 1]
            sums[k] = sums[k + 1]
        for k in range(max(0, best - 1), min(best + 1, n - 1)):
            joint[k] = _code_bits(sums[k] + sums[k + 1], rows[k] + rows[k + 1], all_rows)
    class_of = np.zeros(counts.shape[0], np.uint8)
    bits = 0.0
    for k in range(n):
        bits += own[k]
        class_of[first[k] :] = k
    return class_of[row_group], sums[:n], bits
