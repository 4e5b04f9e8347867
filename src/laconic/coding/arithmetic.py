"""A binary arithmetic coder (Rissanen 1976), apart from any model.

The stream is a number in an interval of 48-bit integers, which each decision narrows in proportion to its probability;
its bytes are those of the shortest number in the last interval. So a stream costs a byte of overhead, where the final
state of an asymmetric numeral system takes four.

Invariants, held by `decide` on return: LOW ≤ HIGH, their highest bytes differ, and LOW ≤ CODE ≤ HIGH while a valid
stream is decoded. Since the highest bytes differ, the interval has at least two numbers. It can become short only while
it straddles a boundary of the highest byte, and does not jam even then: once HIGH − LOW < 65536, a 0 leaves the single
number LOW, whose bytes are shifted out, and a 1 leaves all others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from laconic.core.jit import I64, U8, kernel

WIDTH = 48  # bits of the interval's ends
TOP, ALL = WIDTH - 8, (1 << WIDTH) - 1
MAX_DECISION_BYTES = 3  # a decision takes 17 bits at most
LOW, HIGH, CODE, AT, WRONG = range(5)


class Coder(NamedTuple):
    """Where decisions go, or come from.

    The state: LOW and HIGH, the interval's first and last number; CODE, the stream's number, when decoding; AT, the
    number of bytes that both ends had in common and were shifted out; WRONG, 1 if the content is invalid.
    """

    content: U8  # the stream's bytes: those to decode, or room for those to encode
    reads: bool  # whether to decode
    state: I64


def encoder(n_bytes: int) -> Coder:
    """A coder that encodes into room for `n_bytes`."""
    return Coder(np.zeros(n_bytes + WIDTH // 8, np.uint8), False, np.array([0, ALL, 0, 0, 0], np.int64))


def decoder(content: U8) -> Coder:
    """A coder that decodes `content`."""
    first = int.from_bytes(content[: WIDTH // 8].tobytes().ljust(WIDTH // 8, b"\0"), "big")
    return Coder(content, True, np.array([0, ALL, first, 0, 0], np.int64))


def written(coder: Coder) -> bytes:
    """The bytes of all decisions that were encoded."""
    number, n_bytes = _shortest_number(coder)
    return coder.content[: coder.state[AT]].tobytes() + int(number).to_bytes(WIDTH // 8, "big")[:n_bytes]


def is_exhausted(coder: Coder) -> bool:
    """Whether what was decoded is valid and ends where the content does, as `written` would end it."""
    number, n_bytes = _shortest_number(coder)
    left = coder.content.size - coder.state[AT]
    return not coder.state[WRONG] and (coder.state[CODE], left) == (number, n_bytes)


@kernel
def decide(bit: int, p: int, coder: Coder) -> int:
    """One decision, which is 1 with probability p / 65536: `bit`, or the decoded one."""
    low, high, code, at = coder.state[LOW], coder.state[HIGH], coder.state[CODE], coder.state[AT]
    middle = low + ((high - low) >> 16) * (65536 - p)
    if coder.reads:
        bit = 1 if code > middle else 0
    if bit:
        low = middle + 1
    else:
        high = middle
    while low >> TOP == high >> TOP:
        if coder.reads:
            ahead = at + WIDTH // 8
            code = (code << 8 & ALL) | (np.int64(coder.content[ahead]) if ahead < coder.content.size else 0)
        else:
            coder.content[at] = low >> TOP
        low, high, at = low << 8 & ALL, high << 8 & ALL | 255, at + 1
    coder.state[LOW], coder.state[HIGH], coder.state[CODE], coder.state[AT] = low, high, code, at
    if coder.reads and at > coder.content.size:
        coder.state[WRONG] = 1
    return bit


@kernel
def _shortest_number(coder: Coder) -> tuple[int, int]:
    """The number in the interval with the fewest bytes before its trailing zeros, and this number of bytes."""
    for n in range(WIDTH // 8 + 1):
        unit = 1 << (WIDTH - 8 * n)
        number = -(-coder.state[LOW] // unit) * unit
        if number <= coder.state[HIGH]:
            return number, n
    return coder.state[LOW], WIDTH // 8
