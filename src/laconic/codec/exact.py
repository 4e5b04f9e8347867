"""Chunks that hold a tensor exactly: its bytes, or its words in planes, block by block.

Blocks are coded on their own: by several threads, in bounded memory, with tables that follow the tensor.
`docs/format.md`, "Exact" and "Planes", is the specification.
"""

# torch.from_numpy and NumPy's dtypes are typed in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from laconic.codec.spec import TensorSpec
from laconic.coding import planes
from laconic.coding.bitio import Cursor, Pieces, varint
from laconic.coding.planes import Words
from laconic.core import buffers
from laconic.core.jit import U8
from laconic.core.parallel import Map

BLOCK = 1 << 19  # elements: larger ones code no shorter, smaller ones slower
MIN_PLANE_BYTES = 512  # a smaller tensor's tables cost what they save
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def encode(spec: TensorSpec, tensor: Tensor, run: Map = map) -> Pieces | None:
    """The planes of a contiguous `tensor`; None if it is too small for them."""
    if spec.n_bytes < MIN_PLANE_BYTES:
        return None
    words, n_columns = as_words(tensor), columns(spec)
    parts = blocks(spec.numel, block_length(n_columns))
    most_bytes = planes.most_bytes(parts[0].stop, words.itemsize)
    out = buffers.empty(len(parts) * most_bytes, np.uint8).reshape(len(parts), most_bytes)

    def block(part: tuple[slice, U8]) -> Pieces:
        return [planes.encode(words[part[0]], n_columns, spec.dtype.is_floating_point, part[1])]

    return assembled(spec, run(block, zip(parts, out, strict=True)))


def decode(spec: TensorSpec, source: Cursor, run: Map = map) -> Tensor:
    """The tensor of a chunk of planes.

    Raises:
        FormatError: the chunk violates the specification.
    """
    words = buffers.empty(spec.numel, UNSIGNED[spec.dtype.itemsize])
    n_columns = columns(spec)

    def block(part: tuple[slice, Cursor]) -> None:
        planes.decode(part[1], words[part[0]], n_columns, spec.dtype.is_floating_point)

    for _ in run(block, sections(spec, source)):
        pass
    return as_tensor(words, spec, source)


def parts(spec: TensorSpec, source: Cursor) -> Counter[str]:
    """Part → bytes of a chunk of planes; they add up to its length."""

    def block(n: int, inner: Cursor) -> Counter[str]:
        return planes.measure(inner, n, spec.dtype.itemsize, columns(spec))

    return summed(spec, source, block)


def summed(spec: TensorSpec, source: Cursor, measure: Callable[[int, Cursor], Counter[str]]) -> Counter[str]:
    """What the parts of all blocks take, and the rest of the chunk as headers."""
    whole = len(source)
    found: Counter[str] = Counter()
    for part, inner in sections(spec, source):
        found += measure(part.stop - part.start, inner)
    found["plane headers"] += whole - found.total()
    return found


def columns(spec: TensorSpec) -> int:
    """The length of a row; 0 for a tensor that has none."""
    return spec.numel // spec.shape[0] if len(spec.shape) > 1 else 0


def block_length(n_columns: int) -> int:
    """Elements in a block: whole rows, unless they are longer."""
    return n_columns * (BLOCK // n_columns) if 0 < n_columns <= BLOCK else BLOCK


def blocks(n: int, length: int) -> list[slice]:
    """`n` elements in blocks of `length`, the last one shorter."""
    return [slice(i, min(i + length, n)) for i in range(0, n, length)]


def assembled(spec: TensorSpec, coded: Iterable[Pieces]) -> Pieces:
    """Blocks, after their number of elements and their lengths."""
    each = list(coded)
    head = varint(block_length(columns(spec))) + b"".join(varint(n_bytes(pieces)) for pieces in each)
    return [head, *chain.from_iterable(each)]


def n_bytes(pieces: Pieces) -> int:
    """The length of all pieces."""
    return sum(map(len, pieces))


def sections(spec: TensorSpec, source: Cursor) -> list[tuple[slice, Cursor]]:
    """The blocks of a chunk: which elements, and their bytes."""
    length = source.varint()
    if not length or -(-spec.numel // length) > len(source):
        raise source.error(f"lengths of blocks of {length} elements", f"{len(source)} more bytes")
    which = blocks(spec.numel, length)
    lengths = [source.varint() for _ in which]
    found = [(part, Cursor(source.take(n), source.place)) for part, n in zip(which, lengths, strict=True)]
    if len(source):
        raise source.error("the last block's end", f"{len(source)} more bytes")
    return found


def as_words(tensor: Tensor) -> Words:
    """A contiguous tensor's memory as unsigned integers, flat."""
    raw = tensor.reshape(-1).view(torch.uint8).numpy()
    return raw.view(UNSIGNED[tensor.dtype.itemsize])


def as_tensor(words: Words, spec: TensorSpec, source: Cursor) -> Tensor:
    """The inverse of `as_words`; FormatError where a boolean is neither 0 nor 1."""
    raw = torch.from_numpy(words.view(np.uint8))
    if spec.dtype == torch.bool and raw.max() > 1:
        raise source.error("bytes 0 and 1 for booleans", str(int(raw.max())))
    return raw.view(spec.dtype).reshape(spec.shape)
