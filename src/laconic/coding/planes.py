"""Words in planes: the first bytes of all words, the second bytes, and so on, each plane coded or not.

Floats are rotated by one bit (exponent, mantissa, sign), so the first byte is the exponent, whose entropy in trained
weights is two to three bits; mantissas are noise, and stay as they are. The first plane tells the zeros of a pruned
tensor; the other planes then leave them out. `docs/format.md`, "Planes", is the specification.

Differences of floats are coded as half octaves, in one coded plane, and the bits below their first two, as they are.
The half octave of u is u itself below 2, else 2·(b − 1) + the second of its b bits. Differences of weights spread over
many octaves with hardly any structure within a half. So this codes them about as short as tables of all values would,
with tables of a few dozen entries. `docs/format.md`, "Delta", is the specification.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.coding import byte_stream
from laconic.coding.bitio import Cursor, Pieces, padding_is_zero, varint
from laconic.core.jit import U8, kernel
from laconic.core.threads import scratch

Words = NDArray[Any]  # flat, of one of the four unsigned types
RAW, CONSTANT, STREAM = range(3)
PARTS = ("raw planes", "plane headers", "coded planes")  # by kind, the part that a plane's bytes count as
MIN_ROW_BYTES = 32  # shorter rows tell too little of their scale
RUN = 128  # bytes of a row, in planes without rows
SHARE_OF_ZEROS = 16  # zeros are left out if at least one word in so many is zero


def encode(words: Words, n_columns: int, floating: bool, out: U8) -> memoryview:
    """Write the planes of `words` (not empty), in rows of `n_columns` or none (0), to `out` of `most_bytes`."""
    first = out[2 : 2 + words.size]
    extract(words, words.itemsize - 1, floating, first)
    kept = _without_zeros(words, first)
    body = words if kept is None else kept
    out[0] = kept is not None
    at = 1 + _encode_plane(out[1:], words.size, n_columns)
    for j in range(words.itemsize - 2, -1, -1):
        if body.size:
            extract(body, j, floating, out[at + 1 : at + 1 + body.size])
            at += _encode_plane(out[at:], body.size, n_columns if kept is None else 0)
    return out[:at].data


def most_bytes(n: int, itemsize: int) -> int:
    """The most bytes that the planes of `n` words take."""
    return 1 + itemsize * (1 + n)


def decode(source: Cursor, words: Words, n_columns: int, floating: bool) -> None:
    """Fill `words` from the planes that fill `source`; FormatError if these violate the specification."""
    flag = source.byte()
    source.expect(flag <= 1, "a flag of 0 or 1", flag)
    first = _decode_plane(*_read_plane(source, words.size), words.size, n_columns, source)
    words.fill(0)
    _add(words, words.itemsize - 1, floating, first)
    kept = first != 0 if flag else None
    body = words if kept is None else words[kept]
    for j in range(words.itemsize - 2, -1, -1):
        if body.size:
            plane = _decode_plane(*_read_plane(source, body.size), body.size, 0 if flag else n_columns, source)
            _add(body, j, floating, plane)
    if kept is not None:
        words[kept] = body
    source.end("the planes' end")


def measure(source: Cursor, n: int, itemsize: int, n_columns: int) -> Counter[str]:
    """Part → bytes of the planes of `n` words that fill `source`; they add up to its length."""
    parts = Counter({"plane headers": 1})
    flag = source.byte()
    for j in range(itemsize):
        if not n:
            break
        begin = source.at
        kind, data = _read_plane(source, n)
        parts[PARTS[kind]] += len(data)
        parts["plane headers"] += source.at - begin - len(data)
        if flag and j == 0:
            n, n_columns = int(np.count_nonzero(_decode_plane(kind, data, n, n_columns, source))), 0
    return parts


def _without_zeros(words: Words, first: U8) -> Words | None:
    """The words other than 0, if many words are 0, and no other's first byte is 0; else None."""
    n_zeros = first.size - np.count_nonzero(first)
    if n_zeros * SHARE_OF_ZEROS < first.size or words.itemsize == 1:
        return None
    return words[first != 0] if np.count_nonzero(words) == first.size - n_zeros else None


def _rows(n: int, n_columns: int) -> int:
    """Rows in which a plane of `n` bytes is coded; 0 for runs of RUN."""
    return n // n_columns if n_columns >= MIN_ROW_BYTES and n % n_columns == 0 else 0


def _encode_plane(out: U8, n: int, n_columns: int = 0) -> int:
    """Code one plane, in rows of `n_columns` or none (0), in its place; the length.

    Its `n` ≥ 1 bytes begin at `out[1]`. Its kind and its code, at most 1 + `n` bytes from `out[0]`, replace them.
    """
    plane = out[1 : 1 + n]
    if plane[0] == plane[-1] and (plane == plane[0]).all():
        out[0] = CONSTANT
        return 2
    if byte_stream.least_bits(plane) < 8 * byte_stream.MAX_CODED_SHARE:
        n_rows = _rows(n, n_columns)
        n_missing = 0 if n_rows else -n % RUN
        filled = np.concatenate([plane, np.zeros(n_missing, np.uint8)]) if n_missing else plane
        coded = byte_stream.write(filled, n_rows or filled.size // RUN)
        if coded is not None and len(coded) + 2 <= n:
            stream = bytes([STREAM]) + varint(len(coded)) + coded
            out[: len(stream)] = np.frombuffer(stream, np.uint8)
            return len(stream)
    out[0] = RAW
    return 1 + n


def _read_plane(source: Cursor, n: int) -> tuple[int, memoryview]:
    """The kind of the next plane, which has `n` bytes, and its code."""
    kind = source.byte()
    source.expect(kind <= STREAM, "a kind of plane below 3", kind)
    return kind, source.take(n if kind == RAW else 1 if kind == CONSTANT else source.varint())


def _decode_plane(kind: int, data: memoryview, n: int, n_columns: int, source: Cursor) -> U8:
    """The `n` bytes of a plane from `_read_plane`, valid until the thread's next call; FormatError if it is damaged."""
    if kind == RAW:
        return np.frombuffer(data, np.uint8)
    if kind == CONSTANT:
        return np.full(n, data[0], np.uint8)
    n_rows = _rows(n, n_columns)
    n_filled = n if n_rows else n + -n % RUN
    filled = scratch("plane", n_filled, np.uint8)
    byte_stream.read(Cursor(data, source.place), filled, n_rows or n_filled // RUN)
    source.expect(not filled[n:].any(), "zeros after the last byte of a plane", "others")
    return filled[:n]


@kernel
def _rotation(itemsize: int, floating: bool) -> tuple[np.uint64, np.uint64]:
    """How far bits move up, and how far those pushed out at the top move down."""
    return (np.uint64(1), np.uint64(8 * itemsize - 1)) if floating else (np.uint64(0), np.uint64(0))


@kernel
def extract(words: Words, j: int, floating: bool, plane: U8) -> None:
    """Fill in byte `j` of each word, from the least significant; the sign is a float's lowest bit."""
    up, down = _rotation(words.itemsize, floating)
    shift = np.uint64(8 * j)
    for i in range(words.size):
        word = np.uint64(words[i])
        plane[i] = np.uint8(((word << up) | (word >> down)) >> shift)


@kernel
def _add(words: Words, j: int, floating: bool, plane: U8) -> None:
    """Fill in byte `j` of each word, where it is zero."""
    up, down = _rotation(words.itemsize, floating)
    shift = np.uint64(8 * j)
    for i in range(words.size):
        word = np.uint64(plane[i]) << shift
        words[i] |= (word >> up) | (word << down)  # bits above the type's are cut off


def encode_octaves(words: Words) -> Pieces:
    """Code unsigned `words`, one at least."""
    plane = np.empty(1 + words.size, np.uint8)
    halves = plane[1:]
    rest = np.zeros((_half_octaves(words, halves) + 7) // 8, np.uint8)
    _pack(words, halves, rest)
    return [plane[: _encode_plane(plane, words.size)].data, rest.data]


def decode_octaves(source: Cursor, n: int, dtype: np.dtype[Any]) -> Words:
    """The `n` words of `dtype` that fill `source` to its end; FormatError if the bytes violate the specification."""
    halves = _decode_plane(*_read_plane(source, n), n, 0, source)
    most = 16 * dtype.itemsize
    source.expect(halves.max() < most, f"half octaves below {most}", halves.max())
    rest = source.rest()
    n_bits = int(np.maximum((halves >> 1).astype(np.int64) - 1, 0).sum())
    expected = f"{n_bits} bits and zeros up to a whole byte"
    source.expect(padding_is_zero(rest, n_bits), expected, f"{rest.size} other bytes")
    words = np.empty(n, dtype)
    _unpack(rest, halves, words)
    return words


def measure_octaves(source: Cursor, n: int) -> Counter[str]:
    """Part → bytes of the `n` words that fill `source`; they add up to its length."""
    begin = source.at
    kind, data = _read_plane(source, n)
    parts = Counter({"plane headers": source.at - begin - len(data), "differences": len(source)})
    parts[PARTS[kind]] += len(data)
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
