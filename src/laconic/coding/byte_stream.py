"""Integer streams of bytes, fitted and coded at the speed of memory.

The layout is that of a static stream. What differs is how the model is found: rows are ordered by their mean, cut into
eight groups of equally many, and neighbouring groups are merged while that saves bits; one pass over the bytes counts
all that this needs. It is made for the exponents of floats: their scale depends on the row, and the mean orders scales.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from laconic.coding.bitio import Cursor
from laconic.coding.fit import levels_for
from laconic.coding.layout import Layout
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, Levels, StaticModel
from laconic.coding.stream import read_symbols, write_symbols
from laconic.core.jit import I64, U8, U32, kernel

PRECISION = 12
MAX_GROUPS = 8
MAX_CODED_SHARE = 0.99  # bytes that code no shorter than this stay raw
SAMPLE = 1 << 14
TABLE_BITS = 3.0  # about, for each byte that occurs


def write(plane: U8, n_rows: int) -> bytes | None:
    """Code the bytes `plane` (not empty) in `n_rows` equal rows; None if that would hardly be shorter."""
    model = _fit(plane, n_rows)
    if model is None:
        return None
    labels = b""
    if len(model.frequencies) > 1:
        of_labels = _model(np.bincount(model.row_class)[None], np.zeros(1, np.uint8))
        labels = b"".join(write_symbols(of_labels, model.row_class))
    out = b"".join(write_symbols(model, plane, row_labels=labels))
    return out if len(out) < plane.size else None


def read(source: Cursor, plane: U8, n_rows: int) -> None:
    """Fill `plane`, one byte at least, from the stream that fills `source`.

    FormatError if the stream violates the specification, has escapes, or holds integers that are no bytes.
    """
    symbols = read_symbols(source, Layout(n_rows, plane.size // n_rows))
    model = symbols.model
    source.expect(not model.column_drop.size, "bytes whose columns are alike", "drops of columns")
    of_bytes = 0 <= model.lo <= 256 - model.width and not model.has_escapes
    source.expect(of_bytes, "a table of bytes without escapes", f"one from {model.lo}, {model.width} wide")
    source.end("the stream's end")
    symbols.decode(plane, source)


def _fit(plane: U8, n_rows: int) -> StaticModel | None:
    """The model for `plane`, by row classes; None if that would hardly code shorter, or not at all."""
    n_groups = min(MAX_GROUPS, max(1, n_rows // 4))
    row_group = np.zeros(n_rows, np.uint8)
    if n_groups > 1:
        order = np.argsort(_row_sums(plane, n_rows), kind="stable")
        row_group[order] = np.arange(n_rows) * n_groups // n_rows
    row_class, counts, bits = _merged(_histograms(plane, row_group, n_groups), row_group)
    if bits > 8 * MAX_CODED_SHARE * plane.size:
        return None
    found = _model(counts, row_class)
    return found if found.is_valid else None  # rounding up may overfill a table


def _model(counts: I64, row_class: U8) -> StaticModel:
    """Tables for `counts` (classes, symbols), from the first symbol that occurs to the last, without escapes.

    Rounding levels to 1/r octave costs (ln 2 / 24) / r² bits a symbol, doubling r costs a bit an entry.
    """
    used = np.flatnonzero(counts.any(0))
    lo, width = int(used[0]), int(used[-1] - used[0]) + 1
    within = np.pad(counts[:, lo : lo + width], ((0, 0), (0, 1)))
    n_each = within.sum() / np.count_nonzero(within)
    resolution = 8 if n_each > 735 else 4 if n_each > 184 else 2
    levels = Levels(levels_for(within, resolution, PRECISION), resolution)
    return StaticModel(lo, width, levels, PRECISION, row_class, ALL_COLUMNS_ALIKE)


@kernel
def least_bits(plane: U8) -> float:
    """Bits a byte under one table, estimated from about SAMPLE bytes in runs of 64 spread evenly."""
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
def _row_sums(plane: U8, n_rows: int) -> U32:
    sums = np.zeros(n_rows, np.uint32)
    n_columns = plane.size // n_rows
    for row in range(n_rows):
        total = np.uint32(0)  # 32 bits hold a block's sum, in wider vectors
        for byte in plane[row * n_columns : (row + 1) * n_columns]:
            total += np.uint32(byte)
        sums[row] = total
    return sums


@kernel
def _histograms(plane: U8, row_group: U8, n_groups: int) -> I64:
    """(groups, 256) counts. Neighbours count in tables of their own: equal ones would wait for each other."""
    counts = np.zeros((n_groups, 4, 256), np.uint32)
    n_columns = plane.size // row_group.size
    for row in range(row_group.size):
        of_group = counts[row_group[row]]
        for i, byte in enumerate(plane[row * n_columns : (row + 1) * n_columns]):
            of_group[np.uint64(i) & np.uint64(3), byte] += np.uint32(1)
    return counts.sum(1).astype(np.int64)


@kernel
def _code_bits(counts: I64, n_rows: int, all_rows: int) -> float:
    """Bits of a class: its symbols, about TABLE_BITS for each that occurs, its rows' labels."""
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


def _merged(counts: I64, row_group: U8) -> tuple[U8, I64, float]:
    """The class of each row, the classes' counts, and their bits, after merging groups while that saves bits.

    `counts` are those of the groups (groups, symbols); only neighbours are merged.
    """
    sums, n_rows, begins = list(counts), np.bincount(row_group, minlength=len(counts)).tolist(), [*range(len(counts))]
    own = [_code_bits(one, n, row_group.size) for one, n in zip(sums, n_rows, strict=True)]
    while len(own) > 1:
        pairs = zip(pairwise(sums), pairwise(n_rows), strict=True)
        joint = [_code_bits(a + b, m + n, row_group.size) for (a, b), (m, n) in pairs]
        saved = [a + b - both for (a, b), both in zip(pairwise(own), joint, strict=True)]
        best = int(np.argmax(saved))
        if saved[best] < 0:
            break
        own[best : best + 2] = [joint[best]]
        sums[best : best + 2] = [sums[best] + sums[best + 1]]
        n_rows[best : best + 2] = [n_rows[best] + n_rows[best + 1]]
        del begins[best + 1]
    class_of = np.searchsorted(begins, np.arange(len(counts)), "right") - 1
    return class_of.astype(np.uint8)[row_group], np.stack(sums), sum(own)
