"""CRC-32 of long data by several threads.

With B's length of n bits, crc(AB) = crc(A)·xⁿ + crc(B) in GF(2)[x] modulo the CRC's polynomial, so that parts
can be summed up each on its own. `docs/format.md`, "Conventions", says which CRC it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from laconic.coding.bitio import Buffer
from laconic.core.jit import kernel
from laconic.core.parallel import Map

REFLECTED = 0xEDB88320  # the polynomial, the coefficient of x³¹ lowest
PART = 1 << 20  # bytes


def crc32(pieces: Iterable[Buffer], run: Map = map) -> int:
    """What `zlib.crc32` says of all pieces together."""
    parts = [piece[at : at + PART] for piece in map(memoryview, pieces) for at in range(0, len(piece), PART)]
    total = 0
    for part, checksum in zip(parts, run(zlib.crc32, parts), strict=True):
        total = _times(total, _power(8 * len(part))) ^ checksum
    return total


@kernel
def _times(a: int, b: int) -> int:
    """The product of two polynomials, modulo the CRC's."""
    product = 0
    for i in range(31, -1, -1):  # the coefficient of x⁰ is the highest bit
        if a >> i & 1:
            product ^= b
        b = b >> 1 ^ (REFLECTED if b & 1 else 0)
    return product


@kernel
def _power(n: int) -> int:
    """xⁿ, modulo the CRC's polynomial."""
    power, square = 1 << 31, 1 << 30
    while n:
        if n & 1:
            power = _times(power, square)
        square = _times(square, square)
        n >>= 1
    return power
