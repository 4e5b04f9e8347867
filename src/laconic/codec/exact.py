"""Chunks that hold a tensor exactly: its bytes, or its words in planes, block by block.

Blocks are coded on their own: by several threads, in bounded memory, with tables that follow the tensor.
`docs/format.md`, "Exact" and "Planes", is the specification.
"""

# torch.from_numpy and NumPy's dtypes are typed in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from laconic.codec.spec import TensorSpec
from laconic.coding import planes
from laconic.coding.bitio import Cursor, Pieces, varint
from laconic.coding.planes import Words
from laconic.core.jit import U8
from laconic.core.threads import Map, large_empty

BLOCK = 1 << 19  # elements: larger ones code no shorter, smaller ones slower
MIN_PLANE_BYTES = 512  # a smaller tensor's tables cost what they save
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def encode(spec: TensorSpec, tensor: Tensor, run: Map = map) -> Pieces | None:
    """The planes of a contiguous `tensor`; None if it is too small for them."""
    if spec.n_bytes < MIN_PLANE_BYTES:
        return None
    words, n_columns, parts = as_words(tensor), columns(spec), blocks(spec)
    most_bytes = planes.most_bytes(parts[0].stop, words.itemsize)
    out = large_empty(len(parts) * most_bytes, np.uint8).reshape(len(parts), most_bytes)

    def block(part: tuple[slice, U8]) -> Pieces:
        return [planes.encode(words[part[0]], n_columns, spec.dtype.is_floating_point, part[1])]

    return assembled(spec, run(block, zip(parts, out, strict=True)))


def decode(spec: TensorSpec, source: Cursor, run: Map = map) -> Tensor:
    """The tensor of a chunk of planes; FormatError if the chunk violates the specification."""

    def block(part: slice, inner: Cursor, words: Words) -> None:
        planes.decode(inner, words, columns(spec), spec.dtype.is_floating_point)

    return decoded(spec, source, block, run)


def decoded(spec: TensorSpec, source: Cursor, block: Callable[[slice, Cursor, Words], None], run: Map) -> Tensor:
    """The tensor of a chunk whose blocks `block` decodes: it fills in a block's words from its bytes."""
    words = large_empty(spec.numel, UNSIGNED[spec.dtype.itemsize])

    def fill(part: tuple[slice, Cursor]) -> None:
        block(*part, words[part[0]])

    deque(run(fill, _sections(spec, source)), maxlen=0)
    return as_tensor(words, spec, source)


def parts(spec: TensorSpec, source: Cursor) -> Counter[str]:
    """Part → bytes of a chunk of planes; they add up to its length."""
    return summed(spec, source, lambda n, inner: planes.measure(inner, n, spec.dtype.itemsize, columns(spec)))


def summed(spec: TensorSpec, source: Cursor, measure: Callable[[int, Cursor], Counter[str]]) -> Counter[str]:
    """The parts of all blocks, and the rest of the chunk as headers."""
    whole = len(source)
    found: Counter[str] = Counter()
    for part, inner in _sections(spec, source):
        found += measure(part.stop - part.start, inner)
    found["plane headers"] += whole - found.total()
    return found


def columns(spec: TensorSpec) -> int:
    """The length of a row; 0 for a tensor without rows."""
    return spec.numel // spec.shape[0] if len(spec.shape) > 1 else 0


def _block_length(spec: TensorSpec) -> int:
    """Elements in a block: whole rows, unless they are longer."""
    n_columns = columns(spec)
    return n_columns * (BLOCK // n_columns) if 0 < n_columns <= BLOCK else BLOCK


def blocks(spec: TensorSpec, length: int = 0) -> list[slice]:
    """A tensor's elements in blocks of `length`, by default those of an encoder; the last one is shorter."""
    length = length or _block_length(spec)
    return [slice(i, min(i + length, spec.numel)) for i in range(0, spec.numel, length)]


def assembled(spec: TensorSpec, coded: Iterable[Pieces]) -> Pieces:
    """Blocks, after their number of elements and their lengths."""
    each = list(coded)
    head = varint(_block_length(spec)) + b"".join(varint(n_bytes(pieces)) for pieces in each)
    return [head, *chain.from_iterable(each)]


def n_bytes(pieces: Pieces) -> int:
    """The length of all pieces."""
    return sum(map(len, pieces))


def _sections(spec: TensorSpec, source: Cursor) -> list[tuple[slice, Cursor]]:
    """The blocks of a chunk: their elements, and their bytes."""
    length = source.varint()
    fits = length and -(-spec.numel // length) <= len(source)
    source.expect(fits, f"lengths of blocks of {length} elements", f"{len(source)} more bytes")
    which = blocks(spec, length)
    lengths = [source.varint() for _ in which]
    found = [(part, Cursor(source.take(n), source.place)) for part, n in zip(which, lengths, strict=True)]
    source.end("the last block's end")
    return found


def as_words(tensor: Tensor) -> Words:
    """A contiguous tensor's memory as unsigned integers, flat."""
    return tensor.reshape(-1).view(torch.uint8).numpy().view(UNSIGNED[tensor.dtype.itemsize])


def as_tensor(words: Words, spec: TensorSpec, source: Cursor) -> Tensor:
    """The inverse of `as_words`; FormatError if a boolean is neither 0 nor 1."""
    raw = torch.from_numpy(words.view(np.uint8))
    if spec.dtype == torch.bool:
        source.expect((most := int(raw.max())) <= 1, "bytes 0 and 1 for booleans", most)
    return raw.view(spec.dtype).reshape(spec.shape)
