"""Static range asymmetric numeral systems (Duda 2013), interleaved.

A symbol of frequency f out of M = 2^P turns a lane's state x into about x·M/f, so it costs log2(M/f) bits. Symbol i
belongs to lane i mod N; the lanes are independent chains that share one sequence of 16-bit words, which keeps a
processor's pipeline full. Nothing branches on the data: a lane takes a word by an addition to the words' index.
`docs/format.md` is the specification.

Each class of rows and columns has its own table. Decoding looks up a slot's symbol and the next state in tables of M
entries. Encoding divides x by a frequency f ≤ 2^s through a reciprocal (Granlund & Montgomery 1994): ⌊x/f⌋ is
⌊x·r/2^(32 + s)⌋ for r = ⌈2^(32 + s)/f⌉, since x < f·2^(32 − P) and s ≤ P; and x·r has 64 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.core.jit import I64, U8, U16, U32, U64, kernel
from laconic.core.threads import scratch

LOWEST_STATE = 1 << 16
MOST_LOG2_LANES = 3  # more decode no faster
MIN_LANE_BYTES = 1 << 15  # bytes of words, a thousand times those of the lanes' states

Classes = tuple[U8, U8]  # the table of each row, and how much each column lowers it (empty for none)


def encode(values: NDArray[Any], lo: int, classes: Classes, frequencies: I64, precision: int) -> tuple[int, U64, U16]:
    """The log2 of the number of lanes, their final states, and the words in the order the decoder reads them.

    `values` are flat, row after row. The integer `lo` is symbol 0; integers outside the tables are the last symbol. The
    frequencies (classes, symbols) of each class sum to 2**precision, and that of each value is positive.
    """
    tables = reciprocals(frequencies, precision)
    out = scratch("words", values.size + 1, np.uint16)  # a symbol emits at most one word
    if 2 * values.size >= MIN_LANE_BYTES:
        states, words = encode_lanes(values, lo, classes, tables, MOST_LOG2_LANES, out)
        if words.nbytes >= MIN_LANE_BYTES:
            return MOST_LOG2_LANES, states, words.copy()
    states, words = encode_lanes(values, lo, classes, tables, 0, out)
    return 0, states, words.copy()


@kernel
def reciprocals(frequencies: I64, precision: int) -> U64:
    """(classes, symbols, 4): the least x that is too large, r, M − f, and the symbol's first slot · 64 + 32 + s."""
    tables = np.zeros((*frequencies.shape, 4), np.uint64)
    for c in range(frequencies.shape[0]):
        start = 0
        for symbol in range(frequencies.shape[1]):
            f, shift = frequencies[c, symbol], 32
            if f > 0:
                while (1 << (shift - 32)) < f:
                    shift += 1
                tables[c, symbol, 0] = np.uint64(f << (32 - precision))
                tables[c, symbol, 1] = np.uint64(((1 << shift) + f - 1) // f)
                tables[c, symbol, 2] = np.uint64((1 << precision) - f)
                tables[c, symbol, 3] = np.uint64(start << 6 | shift)
            start += f
    return tables


@kernel
def _fill(begins: U64, row_class: int, column_drop: U8, n_each: int) -> None:
    """Fill in where each column's table of `n_each` entries begins, in a row of this class."""
    begins[:] = np.int64(row_class) * n_each
    for column in range(column_drop.size):
        begins[column] = max(np.int64(row_class) - column_drop[column], 0) * n_each


@kernel
def _put(x: U64, lane: Any, tables: U64, entry: Any, words: U16, at: Any) -> Any:
    """Push a symbol into a lane's state; the index of the next word."""
    y, last = x[lane], tables[entry + np.uint64(3)]
    words[at] = np.uint16(y)
    full = y >= tables[entry]
    y = y >> np.uint64(16) if full else y
    quotient = (y * tables[entry + np.uint64(1)]) >> (last & np.uint64(63))
    x[lane] = y + (last >> np.uint64(6)) + quotient * tables[entry + np.uint64(2)]
    return at - np.uint64(full)


@kernel
def encode_lanes(
    values: NDArray[Any], lo: int, classes: Classes, tables: U64, log2_lanes: int, out: U16
) -> tuple[U64, U16]:
    """States and words of `values`; `tables` are `reciprocals`. Words fill the end of `out`, longer than `values`."""
    row_class, column_drop = classes
    n_columns = values.size // row_class.size
    begins, filled = np.empty(n_columns, np.uint64), -1
    n_each, entries = 4 * tables.shape[1], tables.reshape(-1)
    escape = np.uint64(n_each - 4)
    x = np.full(1 << log2_lanes, 1 << 16, np.uint64)
    lane_mask, one, seven, eight = np.uint64(x.size - 1), np.uint64(1), np.uint64(7), np.uint64(8)
    at, i = np.uint64(out.size - 1), np.uint64(values.size)
    for row in range(row_class.size - 1, -1, -1):
        if row_class[row] != filled:
            filled = int(row_class[row])
            _fill(begins, filled, column_drop, n_each)
        column = np.uint64(n_columns)
        while column > 0:
            n = eight if lane_mask == seven and i & seven == 0 and column >= eight else one
            column -= n
            i -= n
            if n == eight:
                for k in range(7, -1, -1):
                    lane = np.uint64(k)
                    entry = begins[column + lane] + min(np.uint64(4 * (np.int64(values[i + lane]) - lo)), escape)
                    at = _put(x, lane, entries, entry, out, at)
            else:
                entry = begins[column] + min(np.uint64(4 * (np.int64(values[i]) - lo)), escape)
                at = _put(x, i & lane_mask, entries, entry, out, at)
    return x, out[np.int64(at) + 1 :]


@kernel
def unfold(frequencies: I64, precision: int) -> tuple[U16, U32]:
    """For decoding, (classes, 2**precision): each slot's symbol; f << 16 | distance from the symbol's first slot."""
    symbols = np.empty((frequencies.shape[0], 1 << precision), np.uint16)
    steps = np.empty(symbols.shape, np.uint32)
    for c in range(frequencies.shape[0]):
        at = 0
        for symbol in range(frequencies.shape[1]):
            f = frequencies[c, symbol]
            symbols[c, at : at + f] = symbol
            for k in range(f):
                steps[c, at + k] = f << 16 | k
            at += f
    return symbols, steps


@kernel
def _get(x: U64, lane: Any, tables: tuple[U16, U32, Any], begin: Any, words: U16, at: Any) -> tuple[Any, Any]:
    """Pop a symbol from a lane's state; the symbol, and the index of the next word."""
    symbols, steps, shift = tables
    state = x[lane]
    slot = begin + (state & ((np.uint64(1) << shift) - np.uint64(1)))
    step = np.uint64(steps[slot])
    y = (step >> np.uint64(16)) * (state >> shift) + (step & np.uint64(0xFFFF))
    word = np.uint64(words[at])  # read ahead of the choice, which then is no branch
    low = y < np.uint64(1 << 16)
    x[lane] = (y << np.uint64(16)) | word if low else y
    return np.int64(symbols[slot]), at + np.uint64(low)


@kernel
def decode(states: U64, words: U16, classes: Classes, tables: tuple[U16, U32], lo: int, values: NDArray[Any]) -> bool:
    """Fill `values`; False if words are missing or left over, or an end state is wrong.

    States, words and `lo` are those of `encode`, `tables` those of `unfold`; the type of `values` holds the integers.
    """
    row_class, column_drop = classes
    n_slots = tables[0].shape[1]
    n_columns = np.uint64(values.size // row_class.size)
    begins, filled = np.empty(n_columns, np.uint64), -1
    # All unsigned, so that no index is checked for being negative.
    x, lane_mask, shift = states.copy(), np.uint64(states.size - 1), np.uint64(0)
    while (1 << np.int64(shift)) < n_slots:
        shift += np.uint64(1)
    of_all = (tables[0].reshape(-1), tables[1].reshape(-1), shift & np.uint64(15))
    one, seven, eight = np.uint64(1), np.uint64(7), np.uint64(8)
    at, i, n_words = np.uint64(0), np.uint64(0), np.uint64(words.size)
    words = np.append(words, np.zeros(8, np.uint16))  # read, but never taken from a valid stream
    for row in range(row_class.size):
        if row_class[row] != filled:
            filled = int(row_class[row])
            _fill(begins, filled, column_drop, n_slots)
        column = np.uint64(0)
        while column < n_columns:
            if lane_mask == seven and i & seven == 0 and column + eight <= n_columns:
                for k in range(8):
                    lane = np.uint64(k)
                    symbol, at = _get(x, lane, of_all, begins[column + lane], words, at)
                    values[i + lane] = symbol + lo
                column += eight
                i += eight
            else:
                symbol, at = _get(x, i & lane_mask, of_all, begins[column], words, at)
                values[i] = symbol + lo
                column += one
                i += one
            if at > n_words:
                return False
    return at == n_words and (x == np.uint64(1 << 16)).all()
