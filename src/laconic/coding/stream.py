"""An integer stream: flat integers under the model that codes them shortest.

Its first byte tells the model; `docs/format.md`, "Integer streams", is the specification.
"""

from __future__ import annotations

from collections.abc import Mapping

from laconic.coding import adaptive, static
from laconic.coding.bits import Cursor
from laconic.jit import I32

ADAPTIVE = 0x0F
SMALL = 1 << 15  # bytes above which a few percent are not worth a hundred times the time


def write(q: I32, n_rows: int = 1, n_kernel: int = 1) -> bytes:
    """Code integers.

    Args:
        q: flat, one integer at least, in `n_rows` rows of equal length.
        n_rows: the tensor's first dimension, if it is a matrix or more.
        n_kernel: elements in its dimensions from the third on.
    """
    stream = static.write(q, n_rows)
    if len(stream) > SMALL or q.size > adaptive.MOST_INTEGERS:
        return stream
    return min(stream, bytes([ADAPTIVE]) + adaptive.encode(q, n_rows, n_kernel), key=len)


def read(source: Cursor, n: int, n_rows: int = 1, n_kernel: int = 1) -> I32:
    """Decode the `n` ≥ 1 integers of the stream that fills `source` to its end.

    Raises:
        FormatError: the stream violates the specification; nothing larger than the output is allocated.
    """
    if _is_adaptive(source):
        source.byte()
        return adaptive.decode(source, n, n_rows, n_kernel)
    return static.read(source, n, n_rows)


def measure(source: Cursor, n: int, n_rows: int = 1) -> Mapping[str, int]:
    """Part → bytes of a stream of `n` ≥ 1 integers, from its side information; `source` is used up."""
    if _is_adaptive(source):
        parts = {"code header": len(source.take(1)), "weights": len(source)}
        source.take(len(source))
        return parts
    return static.measure(source, n, n_rows)


def model(source: Cursor) -> str:
    """The model's name."""
    return "adaptive" if _is_adaptive(source) else "static"


def _is_adaptive(source: Cursor) -> bool:
    return bytes(source.data[source.at : source.at + 1]) == bytes([ADAPTIVE])
