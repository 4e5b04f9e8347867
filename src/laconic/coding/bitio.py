"""Small codes for side information: varints in bytes, Rice and Exp-Golomb codes in bits.

Bits fill a byte from its most significant end. Readers of bits return −1 where the input ends or a code is not valid;
readers of bytes raise `FormatError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from laconic.core.jit import I64, U8, kernel
from laconic.errors import FormatError

Buffer = bytes | memoryview
Pieces = Sequence[Buffer]  # bytes in parts, so that large ones need not be copied together

MAX_VARINT_BYTES = 9
MAX_ZEROS = 34  # in an Exp-Golomb code, plus its order: enough for the difference of two 32-bit integers


def zigzag(values: Any) -> Any:
    """Map integers, or an int64 array of them, 0, −1, 1, −2 and so on to 0, 1, 2, 3."""
    return values << 1 ^ values >> 63


def unzigzag(codes: Any) -> Any:
    """The inverse of `zigzag`."""
    return codes >> 1 ^ -(codes & 1)


def varint(value: int) -> bytes:
    """`value` ≥ 0 in seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class Cursor:
    """Reads bytes from a buffer in order and refuses to run past its end."""

    def __init__(self, data: bytes | memoryview, place: str) -> None:
        self.data, self.place, self.at = memoryview(data), place, 0

    def __len__(self) -> int:
        return len(self.data) - self.at

    def take(self, n_bytes: int) -> memoryview:
        """The next `n_bytes`; FormatError if fewer are left."""
        if n_bytes > len(self):
            raise self.error(f"{n_bytes} more bytes", len(self))
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def rest(self) -> U8:
        """All bytes that are left, as an array."""
        return np.frombuffer(self.take(len(self)), np.uint8)

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """The next varint; FormatError if it is longer than it needs to be, or than 63 bits."""
        value = 0
        for i in range(MAX_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                self.expect(byte or not i, "a varint in its shortest form", "a longer one")
                return value
        raise self.error(f"a varint of at most {MAX_VARINT_BYTES} bytes", "a longer one")

    def end(self, expected: str) -> None:
        """FormatError if bytes are left."""
        self.expect(not len(self), expected, f"{len(self)} more bytes")

    def expect(self, holds: Any, expected: str, found: object) -> None:
        """FormatError unless `holds`."""
        if not holds:
            raise self.error(expected, found)

    def error(self, expected: str, found: object) -> FormatError:
        """A FormatError that names this place."""
        return FormatError(f"{self.place}, byte {self.at}: expected {expected}, found {found}")


@kernel
def bit_length(value: int) -> int:
    """Bits of `value` ≥ 0; none for 0."""
    n = 0
    while value >> n:
        n += 1
    return n


@kernel
def _put(out: U8, at: int, value: int, n_bits: int) -> int:
    for i in range(n_bits - 1, -1, -1):
        out[at >> 3] |= ((value >> i) & 1) << (7 - (at & 7))
        at += 1
    return at


@kernel
def _get(data: U8, at: int, n_bits: int) -> int:
    value = 0
    for i in range(at, at + n_bits):
        if i >> 3 >= data.size:
            return -1
        value = value << 1 | int((data[i >> 3] >> (7 - (i & 7))) & 1)  # without Numba a uint8, whose sums would wrap
    return value


@kernel
def rice_bits(values: I64, order: int) -> int:
    """Length in bits of `values` ≥ 0 under the Rice code of `order`."""
    return values.size * (1 + order) + (values >> order).sum()


def best_rice_order(values: I64) -> int:
    """The order below 8 that codes `values` ≥ 0 in the fewest bits."""
    return min(range(8), key=lambda order: rice_bits(values, order))


@kernel
def write_rice(values: I64, order: int, out: U8) -> None:
    """Write `values` ≥ 0 into `out`, which is zero and long enough (see `rice_bits`)."""
    at = 0
    for v in values:
        for _ in range(v >> order):
            at = _put(out, at, 1, 1)
        at = _put(out, at, v & ((1 << order) - 1), 1 + order)


@kernel
def read_rice(data: U8, order: int, limit: int, values: I64) -> int:
    """Fill `values` from `data`; the number of bits read, or −1 if a value exceeds `limit`."""
    at = 0
    for i in range(values.size):
        quotient = 0
        while _get(data, at, 1) == 1 and quotient << order <= limit:
            quotient += 1
            at += 1
        low = _get(data, at, 1 + order)
        if low < 0 or low >> order:
            return -1
        values[i] = quotient << order | low
        at += 1 + order
    return at


@kernel
def golomb_bits(values: I64, order: int) -> int:
    """Length in bits of `values` ≥ 0 under the Exp-Golomb code of `order`."""
    total = 0
    for value in values:
        total += 2 * bit_length(value + (1 << order)) - 1 - order
    return total


@kernel
def write_golomb(values: I64, order: int, out: U8) -> None:
    """Write `values` ≥ 0 into `out`, which is zero and long enough (see `golomb_bits`)."""
    at = 0
    for value in values:
        v = value + (1 << order)
        n = bit_length(v)
        at = _put(out, at + n - 1 - order, v, n)


@kernel
def read_golomb(data: U8, order: int, values: I64) -> int:
    """Fill `values` from `data`; the number of bits read, or −1 if a code is cut or too long."""
    at = 0
    for i in range(values.size):
        zeros = 0
        while zeros < MAX_ZEROS - order and _get(data, at, 1) == 0:
            zeros += 1
            at += 1
        v = _get(data, at, zeros + 1 + order)
        if v >> (zeros + order) != 1:
            return -1
        values[i] = v - (1 << order)
        at += zeros + 1 + order
    return at


def padding_is_zero(data: U8, n_bits: int) -> bool:
    """Whether `data` ends in the byte of bit `n_bits` − 1 and its bits from there on are zero."""
    fits = data.size == (n_bits + 7) // 8
    return fits and (n_bits % 8 == 0 or int(data[-1]) & (0xFF >> n_bits % 8) == 0)
