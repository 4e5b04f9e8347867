"""Exact chunks in planes, and differences from a parent, in plain Python, written from docs/format.md alone."""

import math

from tests.file.small_bytes import Bits, Bytes, check
from tests.file.small_streams import Layout, static

FLOATS = (0, 1, 2, 3, 10, 11)  # types


def planes(entry, source, width):
    """The elements' bytes; `width` of each."""
    n_columns = math.prod(entry.shape[1:]) if len(entry.shape) > 1 else 0
    words = [w for n, part in blocks(entry, source, width) for w in block(part, n, width, n_columns)]
    bits = [rotated_back(word, 8 * width) for word in words] if entry.type in FLOATS else words
    check(entry.type != 9 or max(bits, default=0) <= 1, "a bool above 1")
    return b"".join(value.to_bytes(width, "little") for value in bits)


def rotated_back(word, n_bits):
    return word >> 1 | (word & 1) << (n_bits - 1)


def rotated(bits, n_bits):
    return (bits << 1 | bits >> (n_bits - 1)) & ((1 << n_bits) - 1)


def blocks(entry, source, width):
    """How many elements each block has, and its bytes."""
    n, each = entry.n_bytes // width, source.varint()
    check(each >= 1, "blocks without elements")
    sizes = [min(each, n - at) for at in range(0, n, each)]
    lengths = [source.varint() for _ in sizes]
    for size, length in zip(sizes, lengths, strict=True):
        part = Bytes(source.take(length))
        yield size, part
        check(not part.rest(), "bytes after a block's end")


def block(source, n, width, n_columns):
    """Words, from planes of their bytes."""
    without_zeros = source.uint(1)
    check(without_zeros <= 1, "a block's first byte")
    words = list(plane(source, n, n_columns))
    there = [i for i, byte in enumerate(words) if byte or not without_zeros]
    for _ in range(width - 1 if there else 0):
        words = [word << 8 for word in words]
        for i, byte in zip(there, plane(source, len(there), 0 if without_zeros else n_columns), strict=True):
            words[i] |= byte
    return words if there else [0] * n


def plane(source, n, n_columns):
    kind = source.uint(1)
    check(kind <= 2, "a kind of plane")
    if kind < 2:
        return source.take(n) if kind == 0 else source.take(1) * n
    inner = Bytes(source.take(source.varint()))
    by_rows = n_columns >= 32 and n % n_columns == 0
    n_rows = n // n_columns if by_rows else -(-n // 128)
    values = static(inner, Layout(n if by_rows else 128 * n_rows, n_rows), may_be_of=range(256))
    check(not inner.rest() and not any(values[n:]), "bytes after a plane's end")
    return values[:n]


def difference(entry, source, width, parent):
    """The elements' bytes, from mode 0: `parent` has those of the parent's tensor."""
    n_bits, is_float, at = 8 * width, entry.type in FLOATS, 0
    old = [int.from_bytes(parent[i : i + width], "little") for i in range(0, len(parent), width)]
    new = []
    for n, part in blocks(entry, source, width):
        halves = plane(part, n, 0)
        check(max(halves) < 2 * n_bits, "a half octave")
        bits = Bits(part)
        us = [u_of(half, bits) for half in halves]
        bits.close()
        order = range(n)
        if is_float:
            order = sorted(order, key=lambda i: rotated(old[at + i], n_bits) >> (n_bits - 8))
        found = dict(zip(order, us, strict=True))
        new += [moved(old[at + i], found[i], n_bits, is_float) for i in range(n)]
        at += n
    check(entry.type != 9 or max(new, default=0) <= 1, "a bool above 1")
    return b"".join(value.to_bytes(width, "little") for value in new)


def u_of(half, bits):
    if half < 2:
        return half
    n_below = half // 2 - 1
    return (2 | half & 1) << n_below | bits.number(n_below, 0)


def moved(old, u, n_bits, is_float):
    """The element whose o() is that of `old` plus what u says."""
    mask, sign = (1 << n_bits) - 1, 1 << (n_bits - 1)

    def flipped(x):
        return x ^ (sign - 1) if is_float and x & sign else x

    return flipped(flipped(old) + (u // 2 if u % 2 == 0 else -(u + 1) // 2) & mask)
