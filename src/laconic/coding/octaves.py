"""Non-negative integers as half octaves, in a coded plane, and the bits below their first two, as they are.

The half octave of u is u itself below 2, else 2·(b − 1) + the second of its b bits. Differences of weights spread over
many octaves with hardly any structure within a half. So this codes them about as short as tables of all values would,
with tables of a few dozen entries. `docs/format.md`, "Delta", is the specification.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from laconic.coding import planes
from laconic.coding.bitio import Cursor, Pieces, padding_is_zero
from laconic.coding.planes import Words
from laconic.core.jit import U8, kernel


def encode(words: Words) -> Pieces:
    """Code unsigned `words`, one at least."""
    plane = np.empty(1 + words.size, np.uint8)
    halves = plane[1:]
    rest = np.zeros((_half_octaves(words, halves) + 7) // 8, np.uint8)
    _pack(words, halves, rest)
    return [plane[: planes.encode_plane(plane, words.size)].data, rest.data]


def decode(source: Cursor, n: int, dtype: np.dtype[Any]) -> Words:
    """The `n` words of `dtype` that fill `source` to its end; FormatError if the bytes violate the specification."""
    halves = planes.decode_plane(*planes.read_plane(source, n), n, 0, source)
    most = 16 * dtype.itemsize
    if halves.max() >= most:
        raise source.error(f"half octaves below {most}", f"{halves.max()}")
    rest = source.rest()
    n_bits = int(np.maximum((halves >> 1).astype(np.int64) - 1, 0).sum())
    if not padding_is_zero(rest, n_bits):
        raise source.error(f"{n_bits} bits and zeros up to a whole byte", f"{rest.size} other bytes")
    words = np.empty(n, dtype)
    _unpack(rest, halves, words)
    return words


def measure(source: Cursor, n: int) -> Counter[str]:
    """Part → bytes of the `n` words that fill `source`; they add up to its length."""
    begin = source.at
    kind, data = planes.read_plane(source, n)
    parts = Counter({"plane headers": source.at - begin - len(data), "differences": len(source)})
    parts[planes.PARTS[kind]] += len(data)
    return parts


@kernel
def _half_octaves(words: Words, halves: U8) -> int:
    """Fill in each word's half octave; the number of bits below the first two of all words."""
    total = 0
    for i in range(words.size):
        word, n = np.uint64(words[i]), 0  # n bits are below the first two
        for step in (32, 16, 8, 4, 2, 1):
            if word >> np.uint64(step + 1) > 0:
                word >>= np.uint64(step)
                n += step
        halves[i] = np.uint8(2 * n + word)
        total += n
    return total


@kernel
def _pack(words: Words, halves: U8, out: U8) -> None:
    held, n_held, at = np.uint64(0), 0, 0  # fewer than eight bits, which fill no byte yet
    for i in range(words.size):
        left = np.int64(halves[i] >> 1) - 1
        while left > 0:
            n = min(left, 32)
            left -= n
            bits = (np.uint64(words[i]) >> np.uint64(left)) & np.uint64((1 << n) - 1)
            held = (held << np.uint64(n)) | bits
            n_held += n
            while n_held >= 8:
                n_held -= 8
                out[at] = np.uint8(held >> np.uint64(n_held))
                at += 1
    if n_held > 0:
        out[at] = np.uint8(held << np.uint64(8 - n_held))


@kernel
def _unpack(data: U8, halves: U8, words: Words) -> None:
    held, n_held, at = np.uint64(0), 0, 0
    for i in range(halves.size):
        half = np.uint64(halves[i])
        left = np.int64(half >> np.uint64(1)) - 1
        word = half if half < 2 else np.uint64(2) | (half & np.uint64(1))
        while left > 0:
            n = min(left, 32)
            left -= n
            while n_held < n:
                held = (held << np.uint64(8)) | np.uint64(data[at])
                n_held += 8
                at += 1
            n_held -= n
            word = (word << np.uint64(n)) | ((held >> np.uint64(n_held)) & np.uint64((1 << n) - 1))
        words[i] = word
