"""Words in planes: the first bytes of all words, the second bytes, and so on, each plane coded or not.

In a float that is rotated by one bit (exponent, mantissa, sign) the first byte is the exponent, whose entropy
in trained weights is two to three bits; mantissas are noise, and stay as they are. A pruned tensor's zeros
are told by the first plane: the others then leave them out. `docs/format.md`, "Planes", is the specification.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.coding import byte_stream
from laconic.coding.bits import Cursor, varint
from laconic.jit import U8, kernel

Words = NDArray[Any]  # flat, of one of the four unsigned types
RAW, CONSTANT, STREAM = range(3)
PARTS = ("raw planes", "plane headers", "coded planes")  # what a kind's bytes count as
LEAST_ROW = 32  # shorter rows tell too little of their scale
RUN = 128  # what stands for a row where there is none
SHARE_OF_ZEROS = 16  # one in so many makes leaving them out worth a pass


def encode(words: Words, n_columns: int) -> bytes:
    """The planes of `words` (not empty), which are a tensor's in rows of `n_columns`, or in no rows (0)."""
    first = _plane(words, words.itemsize - 1)
    kept = _without_zeros(words, first)
    body = words if kept is None else kept
    parts = [bytes([kept is not None]), encode_plane(first, n_columns)]
    for j in range(words.itemsize - 2, -1, -1):
        if body.size:
            parts.append(encode_plane(_plane(body, j), n_columns if kept is None else 0))
    return b"".join(parts)


def decode(source: Cursor, words: Words, n_columns: int) -> None:
    """Fill `words` from the planes that fill `source` to its end.

    Raises:
        FormatError: the planes violate the specification.
    """
    flag = source.byte()
    if flag > 1:
        raise source.error("a flag of 0 or 1", str(flag))
    words[:] = 0
    first = decode_plane(*read_plane(source, words.size), words.size, n_columns, source)
    _add_plane(words, first, words.itemsize - 1)
    body = words[first != 0] if flag else words
    for j in range(words.itemsize - 2, -1, -1):
        if body.size:
            kind, data = read_plane(source, body.size)
            _add_plane(body, decode_plane(kind, data, body.size, 0 if flag else n_columns, source), j)
    if flag:
        words[first != 0] = body
    if len(source):
        raise source.error("the planes' end", f"{len(source)} more bytes")


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
    """The words whose first byte is not 0, if many are 0 altogether and no other's first byte is."""
    n_zeros = first.size - np.count_nonzero(first)
    if n_zeros * SHARE_OF_ZEROS < first.size or words.itemsize == 1:
        return None
    return words[first != 0] if np.count_nonzero(words) == first.size - n_zeros else None


def _rows(n: int, n_columns: int) -> int:
    """In how many rows a plane of `n` bytes is coded; 0 where in runs of RUN."""
    return n // n_columns if n_columns >= LEAST_ROW and n % n_columns == 0 else 0


def encode_plane(plane: U8, n_columns: int = 0) -> bytes:
    """One plane, not empty, of a tensor with rows of `n_columns` or of no rows: its kind, and its bytes."""
    if plane[0] == plane[-1] and (plane == plane[0]).all():
        return bytes([CONSTANT, plane[0]])
    n_rows = _rows(plane.size, n_columns)
    filled = plane if n_rows else np.pad(plane, (0, -plane.size % RUN))
    coded = byte_stream.write(filled, n_rows or filled.size // RUN)
    if coded is None or len(coded) + 2 > plane.size:
        return bytes([RAW]) + plane.tobytes()
    return bytes([STREAM]) + varint(len(coded)) + coded


def read_plane(source: Cursor, n: int) -> tuple[int, memoryview]:
    """The kind of the next plane, which has `n` bytes, and what the file holds of it."""
    kind = source.byte()
    if kind > STREAM:
        raise source.error("a kind of plane below 3", str(kind))
    return kind, source.take(n if kind == RAW else 1 if kind == CONSTANT else source.varint())


def decode_plane(kind: int, data: memoryview, n: int, n_columns: int, source: Cursor) -> U8:
    """The `n` bytes of a plane that `read_plane` found in `source`; FormatError if it is damaged."""
    if kind == RAW:
        return np.frombuffer(data, np.uint8)
    if kind == CONSTANT:
        return np.full(n, data[0], np.uint8)
    n_rows = _rows(n, n_columns)
    n_filled = n if n_rows else n + -n % RUN
    filled = byte_stream.read(Cursor(data, source.place), n_filled, n_rows or n_filled // RUN)
    if filled[n:].any():
        raise source.error("zeros after the last byte of a plane", "others")
    return filled[:n]


def _plane(words: Words, j: int) -> U8:
    """Byte `j` of each word, 0 being the least significant."""
    plane = np.empty(words.size, np.uint8)
    _extract(words, np.uint64(8 * j), plane)
    return plane


def _add_plane(words: Words, plane: U8, j: int) -> None:
    _insert(words, np.uint64(8 * j), plane)


@kernel
def _extract(words: Words, shift: np.uint64, plane: U8) -> None:
    for i in range(words.size):
        plane[i] = np.uint8(np.uint64(words[i]) >> shift)


@kernel
def _insert(words: Words, shift: np.uint64, plane: U8) -> None:
    for i in range(words.size):
        words[i] |= np.uint64(plane[i]) << shift
