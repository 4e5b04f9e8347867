"""Static range asymmetric numeral systems (Duda 2013), interleaved.

A symbol of frequency f out of M = 2^P turns a lane's state x into about x·M/f, so it costs
log2(M/f) bits. Symbol i belongs to lane i mod N; the lanes are independent chains that share one
sequence of 16-bit words, which keeps a processor's pipeline full. `docs/format.md` is the spec.

Each class of rows and columns has its own table. Encoding needs (frequency, start) by symbol; decoding needs
the symbol by slot, so it unfolds each table into M packed entries `frequency, slot − start, symbol`.
"""

from __future__ import annotations

import numpy as np

from laconic.jit import I64, U8, U16, U64, kernel

LOWEST_STATE = 1 << 16


@kernel
def encode(
    symbols: U16, classes: tuple[U8, U8], frequencies: I64, log2_lanes: int, precision: int
) -> tuple[U64, U16]:
    """Return the lanes' final states and the words, in the order the decoder reads them.

    Args:
        symbols: flat, row after row; each with a positive frequency in its row's table.
        classes: the table of each row, and by how much it drops in each column (empty if nowhere).
        frequencies: (classes, symbols), each row summing to 2**precision.
        log2_lanes: log2 of the number of lanes.
        precision: P.
    """
    row_class, column_drop = classes
    n, n_rows = symbols.size, row_class.size
    n_columns = n // n_rows
    starts = np.zeros(frequencies.shape, np.int64)
    for c in range(frequencies.shape[0]):
        for s in range(1, frequencies.shape[1]):
            starts[c, s] = starts[c, s - 1] + frequencies[c, s - 1]
    lane_mask = (1 << log2_lanes) - 1
    states = np.full(lane_mask + 1, 1 << 16, np.uint64)
    words = np.empty(n + 1, np.uint16)  # a symbol emits at most one word
    at = n + 1
    i = n
    for row in range(n_rows - 1, -1, -1):
        table, start = frequencies[row_class[row]], starts[row_class[row]]
        for column in range(n_columns - 1, -1, -1):
            if column_drop.size:
                c = max(np.int64(row_class[row]) - column_drop[column], 0)
                table, start = frequencies[c], starts[c]
            i -= 1
            s = symbols[i]
            x = states[i & lane_mask]
            f = np.uint64(table[s])
            if x >= f << np.uint64(32 - precision):
                at -= 1
                words[at] = np.uint16(x & np.uint64(0xFFFF))
                x >>= np.uint64(16)
            quotient = np.uint64(np.uint32(x) // np.uint32(f))
            rest = x - quotient * f + np.uint64(start[s])
            states[i & lane_mask] = (quotient << np.uint64(precision)) + rest
    return states, words[at:].copy()


@kernel
def unfold(frequencies: I64, precision: int) -> U64:
    """Decoding tables (classes, 2**precision): frequency << 32 | slot − start << 16 | symbol."""
    slots = np.empty((frequencies.shape[0], 1 << precision), np.uint64)
    for c in range(frequencies.shape[0]):
        at = 0
        for s in range(frequencies.shape[1]):
            f = frequencies[c, s]
            for bias in range(f):
                slots[c, at + bias] = np.uint64((f << 32) | (bias << 16) | s)
            at += f
    return slots


@kernel
def decode(states: U64, words: U16, classes: tuple[U8, U8], slots: U64, symbols: U16) -> bool:
    """Fill `symbols`; False if the words do not fit: too few, left over, or an end state is wrong.

    Args:
        states: the lanes' final states; used up.
        words: in reading order.
        classes: the table of each row, and by how much it drops in each column (empty if nowhere).
        slots: from `unfold`.
        symbols: flat output, of a length that the rows divide.
    """
    row_class, column_drop = classes
    n, n_rows = symbols.size, row_class.size
    n_columns = n // n_rows
    lane_mask = states.size - 1
    slot_mask = np.uint64(slots.shape[1] - 1)
    precision = np.uint64(0)
    while (1 << np.int64(precision)) < slots.shape[1]:
        precision += np.uint64(1)
    at, i = 0, 0
    for row in range(n_rows):
        table = slots[row_class[row]]
        for column in range(n_columns):
            if column_drop.size:
                table = slots[max(np.int64(row_class[row]) - column_drop[column], 0)]
            x = states[i & lane_mask]
            entry = table[x & slot_mask]
            frequency, bias = entry >> np.uint64(32), (entry >> np.uint64(16)) & np.uint64(0xFFFF)
            x = frequency * (x >> precision) + bias
            if x < np.uint64(1 << 16):
                if at >= words.size:
                    return False
                x = (x << np.uint64(16)) | np.uint64(words[at])
                at += 1
            states[i & lane_mask] = x
            symbols[i] = np.uint16(entry & np.uint64(0xFFFF))
            i += 1
    for lane in range(states.size):
        if states[lane] != np.uint64(1 << 16):
            return False
    return at == words.size
