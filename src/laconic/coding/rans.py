"""Static range asymmetric numeral systems (Duda 2013), interleaved.

A symbol of frequency f out of M = 2^P turns a lane's state x into about x·M/f, so it costs log2(M/f) bits.
Symbol i belongs to lane i mod N; the lanes are independent chains that share one sequence of 16-bit words,
which keeps a processor's pipeline full. Nothing branches on the data: whether a lane takes a word is an
addition to the words' index. `docs/format.md` is the specification.

Each class of rows and columns has its own table. Decoding needs the symbol by slot, so it unfolds each table
into M packed entries. Encoding divides x by a frequency f ≤ 2^s through a reciprocal (Granlund & Montgomery
1994): with k = 31 + s, ⌊x/f⌋ is ⌊x·r/2^k⌋ for r = ⌈2^k/f⌉ if x·(r·f − 2^k) < 2^k, else ⌊(x + 1)·r/2^k⌋ for
r = ⌊2^k/f⌋; x < f·2^(32 − P), so one of them holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.jit import I64, U8, U16, U64, kernel

LOWEST_STATE = 1 << 16
MOST_LOG2_LANES = 3  # more decode no faster
LEAST_FOR_LANES = 1 << 15  # bytes of words, of which the lanes' states then are a thousandth

Classes = tuple[U8, U8]  # the table of each row, and by how much it drops in each column (empty if nowhere)


def encode(
    values: NDArray[Any], lo: int, classes: Classes, frequencies: I64, precision: int
) -> tuple[int, U64, U16]:
    """The log2 of the number of lanes, their final states, and the words in the order the decoder reads them.

    Args:
        values: flat integers, row after row. Less `lo` they are symbols; those outside the tables are the
            last symbol. Each has a positive frequency in its table.
        lo: the integer whose symbol is 0.
        classes: which table holds where.
        frequencies: (classes, symbols), each row summing to 2**precision.
        precision: P.
    """
    tables = reciprocals(frequencies, precision)
    if 2 * values.size >= LEAST_FOR_LANES:  # a word a symbol at most
        states, words = encode_lanes(values, lo, classes, tables, precision, MOST_LOG2_LANES)
        if words.nbytes >= LEAST_FOR_LANES:
            return MOST_LOG2_LANES, states, words
    return 0, *encode_lanes(values, lo, classes, tables, precision, 0)


@kernel
def reciprocals(frequencies: I64, precision: int) -> U64:
    """(classes, symbols, 2): f << 40 | rounded down << 37 | s − 1 << 32 | r, and M − f << 32 | bias."""
    tables = np.zeros((*frequencies.shape, 2), np.uint64)
    for c in range(frequencies.shape[0]):
        start = 0
        for symbol in range(frequencies.shape[1]):
            f = frequencies[c, symbol]
            if f > 0:
                shift, bias, down = 1, start, 0
                while (1 << shift) < f:
                    shift += 1
                reciprocal = ((1 << (shift + 31)) + f - 1) // f
                excess = reciprocal * f - (1 << (shift + 31))
                if f == 1:  # ⌊x·(2^32 − 1) / 2^32⌋ = x − 1, which the bias makes good
                    reciprocal, bias = (1 << 32) - 1, start + (1 << precision) - 1
                elif excess * f >= 1 << (shift + precision - 1):
                    reciprocal, down = reciprocal - 1, 1
                tables[c, symbol, 0] = np.uint64(f << 40 | down << 37 | (shift - 1) << 32 | reciprocal)
                tables[c, symbol, 1] = np.uint64(((1 << precision) - f) << 32 | bias)
            start += f
    return tables


@kernel
def _fill(begins: U64, row_class: int, column_drop: U8, n_each: int) -> None:
    """Where each column's table, of `n_each` entries, begins in a row of this class."""
    begins[:] = np.int64(row_class) * n_each
    for column in range(column_drop.size):
        begins[column] = max(np.int64(row_class) - column_drop[column], 0) * n_each


@kernel
def _put(x: U64, lane: Any, divide: Any, add: Any, spare: Any, words: U16, at: Any) -> Any:
    """Take a symbol into a lane's state; where the next word goes."""
    y, low = x[lane], np.uint64(0xFFFFFFFF)
    words[at] = np.uint16(y)
    full = y >= (divide >> np.uint64(40)) << spare
    y = y >> np.uint64(16) if full else y
    from_y = y + ((divide >> np.uint64(37)) & np.uint64(1))
    quotient = (from_y * (divide & low)) >> np.uint64(32) >> ((divide >> np.uint64(32)) & np.uint64(31))
    x[lane] = y + (add & low) + quotient * (add >> np.uint64(32))
    return at - np.uint64(full)


@kernel
def encode_lanes(
    values: NDArray[Any], lo: int, classes: Classes, tables: U64, precision: int, log2_lanes: int
) -> tuple[U64, U16]:
    """States and words of `values` in so many lanes; `tables` are `reciprocals`."""
    row_class, column_drop = classes
    n_columns = values.size // row_class.size
    begins, filled = np.empty(n_columns, np.uint64), -1
    n_symbols, tables = tables.shape[1], tables.reshape(-1, 2)
    escape, spare = np.uint64(n_symbols - 1), np.uint64(32 - precision)
    x = np.full(1 << log2_lanes, 1 << 16, np.uint64)
    lane_mask, one, seven, eight = np.uint64(x.size - 1), np.uint64(1), np.uint64(7), np.uint64(8)
    words = np.empty(values.size + 1, np.uint16)  # a symbol emits at most one word
    at = i = np.uint64(values.size)
    for row in range(row_class.size - 1, -1, -1):
        if row_class[row] != filled:
            filled = int(row_class[row])
            _fill(begins, filled, column_drop, n_symbols)
        column = np.uint64(n_columns)
        while column > 0:
            n = eight if lane_mask == seven and i & seven == 0 and column >= eight else one
            column -= n
            i -= n
            if n == eight:
                for k in range(7, -1, -1):
                    lane = np.uint64(k)
                    entry = begins[column + lane] + min(np.uint64(np.int64(values[i + lane]) - lo), escape)
                    at = _put(x, lane, tables[entry, 0], tables[entry, 1], spare, words, at)
            else:
                entry = begins[column] + min(np.uint64(np.int64(values[i]) - lo), escape)
                at = _put(x, i & lane_mask, tables[entry, 0], tables[entry, 1], spare, words, at)
    return x, words[np.int64(at) + 1 :].copy()


@kernel
def unfold(frequencies: I64, precision: int) -> tuple[U16, U64]:
    """For decoding, (classes, 2**precision): symbols; (classes, symbols): frequency << 32 | start."""
    slots = np.empty((frequencies.shape[0], 1 << precision), np.uint16)
    spans = np.empty(frequencies.shape, np.uint64)
    for c in range(frequencies.shape[0]):
        at = 0
        for s in range(frequencies.shape[1]):
            spans[c, s] = np.uint64(frequencies[c, s] << 32 | at)
            slots[c, at : at + frequencies[c, s]] = s
            at += frequencies[c, s]
    return slots, spans


@kernel
def _get(x: Any, lane: Any, tables: tuple[Any, Any, Any], c: Any, words: U16, at: Any) -> tuple[Any, Any]:
    """The next symbol of a lane, whose state goes on, and the next word's index."""
    slots, spans, shift = tables
    slot = x[lane] & np.uint32((np.uint32(1) << shift) - np.uint32(1))
    symbol = slots[c, slot]
    span = spans[c, symbol]
    y = np.uint32(span >> np.uint64(32)) * (x[lane] >> shift) + (slot - np.uint32(span))
    word = np.uint32(words[at])  # read ahead of the choice, which then is no branch
    low = y < np.uint32(1 << 16)
    x[lane] = (y << np.uint32(16)) | word if low else y
    return np.int64(symbol), at + np.uint64(low)


@kernel
def decode(
    states: U64, words: U16, classes: Classes, tables: tuple[U16, U64], lo: int, values: NDArray[Any]
) -> bool:
    """Fill `values`; False if the words do not fit: too few, left over, or an end state is wrong.

    Args:
        states: the lanes' final states, a power of two of them.
        words: in reading order.
        classes: which table holds where.
        tables: from `unfold`.
        lo: the integer whose symbol is 0.
        values: flat output, of a type that holds them, and of a length that the rows divide.
    """
    row_class, column_drop = classes
    slots, spans = tables
    n_columns = np.uint64(values.size // row_class.size)
    table, filled = np.empty(n_columns, np.uint64), -1
    # All unsigned, so that no index is checked for being negative.
    x, lane_mask, shift = states.astype(np.uint32), np.uint64(states.size - 1), np.uint32(0)
    while (1 << np.int64(shift)) < slots.shape[1]:
        shift += np.uint32(1)
    of_all = (slots, spans, shift)
    last = np.empty(1, np.uint16)  # read, but never taken, where no word is left
    one, seven, eight = np.uint64(1), np.uint64(7), np.uint64(8)
    at, i, n_words = np.uint64(0), np.uint64(0), np.uint64(words.size)
    for row in range(row_class.size):
        if row_class[row] != filled:
            filled = int(row_class[row])
            _fill(table, filled, column_drop, 1)
        column = np.uint64(0)
        while column < n_columns:
            in_full = lane_mask == seven and i & seven == 0 and column + eight <= n_columns
            if in_full and at + eight <= n_words:
                for k in range(8):
                    lane = np.uint64(k)
                    symbol, at = _get(x, lane, of_all, table[column + lane], words, at)
                    values[i + lane] = symbol + lo
                column += eight
                i += eight
            else:
                if at < n_words:
                    symbol, at = _get(x, i & lane_mask, of_all, table[column], words, at)
                else:
                    symbol, taken = _get(x, i & lane_mask, of_all, table[column], last, np.uint64(0))
                    if taken:
                        return False
                values[i] = symbol + lo
                column += one
                i += one
    for lane in range(states.size):
        if x[lane] != np.uint32(1 << 16):
            return False
    return at == words.size
