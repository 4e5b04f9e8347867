"""Words in planes: the first bytes of all words, the second bytes, and so on, each plane coded or not.

Floats are rotated by one bit (exponent, mantissa, sign), so the first byte is the exponent, whose entropy in trained
weights is two to three bits; mantissas are noise, and stay as they are. The first plane tells the zeros of a pruned
tensor; the other planes then leave them out. `docs/format.md`, "Planes", is the specification.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.coding import byte_stream
from laconic.coding.bitio import Cursor, varint
from laconic.core import buffers
from laconic.core.jit import U8, kernel

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
    at = 1 + encode_plane(out[1:], words.size, n_columns)
    for j in range(words.itemsize - 2, -1, -1):
        if body.size:
            extract(body, j, floating, out[at + 1 : at + 1 + body.size])
            at += encode_plane(out[at:], body.size, n_columns if kept is None else 0)
    return out[:at].data


def most_bytes(n: int, itemsize: int) -> int:
    """The most bytes that the planes of `n` words take."""
    return 1 + itemsize * (1 + n)


def decode(source: Cursor, words: Words, n_columns: int, floating: bool) -> None:
    """Fill `words` from the planes that fill `source`; FormatError if these violate the specification."""
    flag = source.byte()
    if flag > 1:
        raise source.error("a flag of 0 or 1", str(flag))
    first = decode_plane(*read_plane(source, words.size), words.size, n_columns, source)
    words.fill(0)
    _add(words, *_rotation(words, floating), np.uint64(8 * (words.itemsize - 1)), first)
    kept = first != 0 if flag else None
    body = words if kept is None else words[kept]
    for j in range(words.itemsize - 2, -1, -1):
        if body.size:
            plane = decode_plane(*read_plane(source, body.size), body.size, 0 if flag else n_columns, source)
            _add(body, *_rotation(words, floating), np.uint64(8 * j), plane)
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
        kind, data = read_plane(source, n)
        parts[PARTS[kind]] += len(data)
        parts["plane headers"] += source.at - begin - len(data)
        if flag and j == 0:
            n, n_columns = int(np.count_nonzero(decode_plane(kind, data, n, n_columns, source))), 0
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


def encode_plane(out: U8, n: int, n_columns: int = 0) -> int:
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


def read_plane(source: Cursor, n: int) -> tuple[int, memoryview]:
    """The kind of the next plane, which has `n` bytes, and its code."""
    kind = source.byte()
    if kind > STREAM:
        raise source.error("a kind of plane below 3", str(kind))
    return kind, source.take(n if kind == RAW else 1 if kind == CONSTANT else source.varint())


def decode_plane(kind: int, data: memoryview, n: int, n_columns: int, source: Cursor) -> U8:
    """The `n` bytes of a plane from `read_plane`, valid until the thread's next call; FormatError if it is damaged."""
    if kind == RAW:
        return np.frombuffer(data, np.uint8)
    if kind == CONSTANT:
        return np.full(n, data[0], np.uint8)
    n_rows = _rows(n, n_columns)
    n_filled = n if n_rows else n + -n % RUN
    filled = buffers.scratch("plane", n_filled, np.uint8)
    byte_stream.read(Cursor(data, source.place), filled, n_rows or n_filled // RUN)
    if filled[n:].any():
        raise source.error("zeros after the last byte of a plane", "others")
    return filled[:n]


def extract(words: Words, j: int, floating: bool, plane: U8) -> None:
    """Fill in byte `j` of each word, from the least significant; the sign is a float's lowest bit."""
    _extract(words, *_rotation(words, floating), np.uint64(8 * j), plane)


def _rotation(words: Words, floating: bool) -> tuple[np.uint64, np.uint64]:
    """How far bits move up, and how far those pushed out at the top move down."""
    return (np.uint64(1), np.uint64(8 * words.itemsize - 1)) if floating else (np.uint64(0), np.uint64(0))


@kernel
def _extract(words: Words, up: np.uint64, down: np.uint64, shift: np.uint64, plane: U8) -> None:
    for i in range(words.size):
        word = np.uint64(words[i])
        plane[i] = np.uint8(((word << up) | (word >> down)) >> shift)


@kernel
def _add(words: Words, up: np.uint64, down: np.uint64, shift: np.uint64, plane: U8) -> None:
    for i in range(words.size):
        word = np.uint64(plane[i]) << shift
        words[i] |= (word >> up) | (word << down)  # bits above the type's are cut off
