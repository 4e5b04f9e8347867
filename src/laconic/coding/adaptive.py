"""An adaptive model, for tensors so small that tables cost more than they save.

Integers become binary decisions: zero or not; the magnitude's length in bits, one by one; its lower bits; the sign.
Contexts keep a probability for every decision and adapt it after each, from empty counts, so nothing is sent ahead.
Decisions of the first two kinds have seven contexts, whose votes are mixed in the logistic domain by weights that adapt
as well (Mahoney 2005). A context is what is known of the neighbourhood: how large the row and the column have been so
far, the weights before and above, the same place in the previous channel's kernel. So dead inputs, dead outputs and
their scales cost almost nothing. Kernels are smooth: a sign is more often than not that of its neighbours in the
kernel, and its context is how they agree.

All is integer arithmetic, so that every machine decodes the same; `docs/format.md`, "Adaptive streams", is the
specification. `laconic.coding.arithmetic` codes the decisions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from laconic.coding.arithmetic import MAX_DECISION_BYTES, WRONG, Coder, decide, decoder, encoder, is_exhausted, written
from laconic.coding.bitio import Cursor, bit_length
from laconic.coding.layout import Layout
from laconic.core.jit import F32, I32, I64, INT32_MAX, INT32_MIN, U8, kernel

MAX_INTEGERS = 1 << 20  # in a stream: a decision takes 50 ns, and may cost no bits

# How many values each context has, and where each begins among all.
N_VALUES = (1, 32, 32, 32, 256, 1024, 256)
FIRST_VALUES = (0, 1, 33, 65, 97, 353, 1377)
N_CONTEXTS, UNKNOWN = len(N_VALUES), 31
# Decisions that contexts vote on: zero or not, then for each length whether the magnitude is longer.
N_VOTED = MAX_LENGTH_BITS = 32
# Decisions that have one probability each, after all others: the sign, the bit below the highest, the one below that.
SIGN = (FIRST_VALUES[-1] + N_VALUES[-1]) * N_VOTED
UPPER, LOWER, N_SLOTS = SIGN + 5, SIGN + 38, SIGN + 104

SCALE = 22  # bits of a stored probability
MAX_SEEN = 255
FIRST_WEIGHT = 13107  # a fifth, in 65536ths
NO_PRICES = np.zeros((0, 0), np.float32)

HIGHEST = 3071  # of a logit, in 256ths
# 65536 / (1 + e^(−k/4)) for k = −48 … 48, rounded.
LOGISTIC = np.rint(65536 / (1 + np.exp(-np.arange(-48, 49) / 4))).astype(np.int64)
# The logistic function of −HIGHEST … HIGHEST in 65536ths, linear between those points, at least 1 and at most 65535.
_K, _PART = np.divmod(np.arange(1, 2 * HIGHEST + 2), 64)
PROBABILITIES = np.clip((LOGISTIC[_K] * (64 - _PART) + LOGISTIC[_K + 1] * _PART + 32) >> 6, 1, 65535)
# By probability: the smallest logit whose probability is as large; the highest if there is none.
LOGITS = np.minimum(np.searchsorted(PROBABILITIES, np.arange(65536)) - HIGHEST, HIGHEST).astype(np.int16)


@kernel
def _size(value: int) -> int:
    """The bucket, below UNKNOWN, of `value` ≥ 0: two an octave."""
    n = bit_length(value)
    if n < 2:
        return n
    return min(2 * n - 2 + ((value >> (n - 2)) & 1), UNKNOWN - 1)


@kernel
def _magnitude(q: I32, at: int) -> Any:
    return min(abs(np.int64(q[at])), 1 << 20)  # in 64 bits, since the smallest 32-bit integer has no 32-bit magnitude


@kernel
def _look_around(q: I32, at: int, shape: I64, sums: I64, contexts: I64) -> None:
    """Fill `contexts` with the slots that belong to what is known before the integer `at`."""
    n_columns, n_kernel, n_line = shape[1], shape[2], shape[3]
    row, column = at // n_columns, at % n_columns
    place = column % n_kernel
    left = _magnitude(q, at - 1) if column > 0 else 0
    second = _magnitude(q, at - 2) if column > 1 else 0
    above = _magnitude(q, at - n_columns) if row > 0 else 0
    channel = _magnitude(q, at - n_kernel) if column >= n_kernel else 0
    over = _magnitude(q, at - n_line) if place >= n_line else 0
    in_row = 512 * sums[-1] // (column + 4)
    in_column = 512 * sums[column] // (row + 1)
    row_size = _size(in_row) if column > 3 else UNKNOWN
    column_size = _size(in_column) if row > 0 else UNKNOWN
    contexts[0] = 0
    contexts[1] = row_size
    contexts[2] = column_size
    contexts[3] = _size(in_row + in_column)
    contexts[4] = min(bit_length(2 * left + second + above + 2 * over), 15) * 16 + place % 16
    contexts[5] = row_size * 32 + column_size
    contexts[6] = min(left, 3) * 64 + min(above, 3) * 16 + min(channel, 3) * 4 + min(over, 3)
    for i in range(N_CONTEXTS):
        contexts[i] = (FIRST_VALUES[i] + contexts[i]) * N_VOTED


@kernel
def _leaning(q: I32, at: int, shape: I64) -> Any:
    """3 times the sign before in the line, plus the sign in the line before, of a kernel or a matrix's row."""
    n_kernel, n_line = shape[2], shape[3]
    place = at % shape[1] % n_kernel if n_kernel > 1 else at % shape[1]
    before = np.sign(q[at - 1]) if place % n_line > 0 else 0
    over = np.sign(q[at - n_line]) if place >= n_line else 0
    return 3 * before + over


class _Model(NamedTuple):
    """What adapts. A probability is that of a 1, in units of 2^−SCALE; `seen` counts its uses."""

    chances: I32  # by context, its value, and decision; then of the decisions that have one each
    seen: U8
    weights: I64  # (decisions, contexts) of votes, in 65536ths


@kernel
def _step(model: _Model, slot: int, bit: int) -> None:
    """Move a probability towards what was decided: by 1/1.5 the first time, by 1/2.5 the second, and so on."""
    seen = np.int64(model.seen[slot])
    model.chances[slot] += ((bit << SCALE) - model.chances[slot]) * 2 // (2 * seen + 3)
    model.seen[slot] = min(seen + 1, MAX_SEEN)


@kernel
def _vote(n: int, contexts: I64, votes: I64, model: _Model) -> int:
    """The probability, in 65536ths, that a magnitude of at least `n` bits has more; fills in the `votes`."""
    total = 0
    for i in range(N_CONTEXTS):
        slot = contexts[i] + n
        times = np.int64(model.seen[slot])
        logit = np.int64(LOGITS[model.chances[slot] >> (SCALE - 16)])
        votes[i] = logit * (times + 1) // (times + 3)
        total += model.weights[n, i] * votes[i]
    return PROBABILITIES[min(max(total >> 16, -HIGHEST), HIGHEST) + HIGHEST]


@kernel
def _decide_by_votes(bit: int, n: int, contexts: I64, votes: I64, model: _Model, coder: Coder) -> int:
    """Whether a magnitude of `n` bits at least has more; `votes` is room for one number a context."""
    p = _vote(n, contexts, votes, model)
    bit = decide(bit, p, coder)
    error = ((bit << 16) - p) * 4
    for i in range(N_CONTEXTS):
        model.weights[n, i] += (votes[i] * error + (1 << 18)) >> 19
        _step(model, contexts[i] + n, bit)
    return bit


@kernel
def _decide_plainly(bit: int, slot: int, model: _Model, coder: Coder) -> int:
    """By a probability of its own."""
    p = min(max(model.chances[slot] >> (SCALE - 16), 1), 65535)
    bit = decide(bit, p, coder)
    _step(model, slot, bit)
    return bit


@kernel
def _price(contexts: I64, votes: I64, model: _Model, bits: F32) -> None:
    """What an integer of each length in bits would cost here; lower bits and sign count whole."""
    longer = np.float64(0)  # bits that say that it has `n` bits at least
    for n in range(bits.size):
        p = _vote(n, contexts, votes, model) / 65536
        bits[n] = longer - np.log2(1 - p) + n
        longer -= np.log2(p)


@kernel
def _run(q: I32, shape: I64, coder: Coder, prices: F32) -> None:
    """Code all of `q`, or fill it. Shape: rows, columns, integers of a kernel, and of a line.

    `prices` (integers, lengths), if any, are filled with the bits that other integers would cost.
    """
    chances, seen = np.full(N_SLOTS, 1 << (SCALE - 1), np.int32), np.zeros(N_SLOTS, np.uint8)
    model = _Model(chances, seen, np.full((N_VOTED, N_CONTEXTS), FIRST_WEIGHT, np.int64))
    contexts, votes = np.empty(N_CONTEXTS, np.int64), np.empty(N_CONTEXTS, np.int64)
    sums = np.zeros(shape[1] + 1, np.int64)  # of magnitudes: each column's, and the row's
    for at in range(q.size):
        column = at % shape[1]
        if column == 0:
            sums[-1] = 0
        _look_around(q, at, shape, sums, contexts)
        if prices.size:
            _price(contexts, votes, model, prices[at])
        target: Any = np.int64(q[at])
        n_target, n, longer = bit_length(abs(target)), 0, 1
        while longer and n < MAX_LENGTH_BITS:
            longer = _decide_by_votes(1 if n_target > n else 0, n, contexts, votes, model, coder)
            n += longer
        value = _lower_bits(target, n, model, coder)
        if n:
            value *= _sign(-1 if target < 0 else 1, _leaning(q, at, shape), model, coder)
        if not INT32_MIN <= value <= INT32_MAX:
            coder.state[WRONG] = 1
        if coder.state[WRONG]:
            return
        q[at] = value
        sums[column] += _magnitude(q, at)
        sums[-1] += _magnitude(q, at)


@kernel
def _sign(target: int, leaning: int, model: _Model, coder: Coder) -> int:
    """1 or −1, coded as whether it is what the neighbours lean to; −1 is likely if they do not lean."""
    likely = 1 if leaning > 0 else -1
    agrees = _decide_plainly(1 if target == likely else 0, SIGN + abs(leaning), model, coder)
    return likely if agrees else -likely


@kernel
def _lower_bits(target: int, n: int, model: _Model, coder: Coder) -> int:
    """The magnitude, which has `n` bits."""
    value = 1 if n else 0
    for place in range(n - 2, -1, -1):
        bit = (abs(target) >> place) & 1
        if place == n - 2:
            bit = _decide_plainly(bit, UPPER + n, model, coder)
        elif place == n - 3:
            bit = _decide_plainly(bit, LOWER + 2 * n + (value & 1), model, coder)
        else:
            bit = decide(bit, 1 << 15, coder)
        value = value << 1 | bit
    return value


def encode(q: I32, layout: Layout, prices: F32 = NO_PRICES) -> bytes:
    """The bytes of the flat integers `q`, one at least and MAX_INTEGERS at most; `prices` as in `_run`."""
    lengths = np.frexp(np.abs(q.astype(np.float64)))[1]
    # For each integer its length in unary, ended unless it is the longest, the lower bits, and the sign.
    n_decisions = int((np.minimum(lengths + 1, MAX_LENGTH_BITS) + lengths).sum())
    coder = encoder(MAX_DECISION_BYTES * n_decisions)
    _run(q.copy(), _shape(layout), coder, prices)
    return written(coder)


def decode(source: Cursor, layout: Layout) -> I32:
    """Decode the rest of `source`; FormatError beyond MAX_INTEGERS, or if they do not end where it does."""
    few = layout.n <= MAX_INTEGERS
    source.expect(few, f"at most {MAX_INTEGERS:,} integers in an adaptive stream", f"{layout.n:,}")
    coder = decoder(source.rest().copy())
    q = np.zeros(layout.n, np.int32)
    _run(q, _shape(layout), coder, NO_PRICES)
    source.expect(is_exhausted(coder), "bytes that decode to the end", "too few, too many, or damaged ones")
    return q


def prices(q: I32, layout: Layout, n_lengths: int) -> F32:
    """(integers, lengths): bits of an integer whose magnitude has 0, 1, … bits in each place of `q`."""
    found = np.empty((q.size, n_lengths), np.float32)
    encode(q, layout, found)
    return found


def _shape(layout: Layout) -> I64:
    return np.array([layout.n_rows, layout.n_columns, layout.n_kernel, layout.n_line], np.int64)
