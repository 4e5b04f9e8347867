"""Chunks that hold a tensor exactly: its bytes, or its words in planes, block by block.

Blocks are coded on their own: by several threads, in bounded memory, with tables that follow the tensor.
`docs/format.md`, "Exact" and "Planes", is the specification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from laconic import memory
from laconic.coding import planes
from laconic.coding.bits import Buffer, Cursor, Pieces, varint
from laconic.coding.planes import Words
from laconic.forms import Form
from laconic.jit import U8

BLOCK = 1 << 19  # elements: larger ones code no shorter, smaller ones slower
LEAST_BYTES = 512  # a smaller tensor's tables cost what they save
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

A = TypeVar("A")
B = TypeVar("B")


class Run(Protocol):
    """How blocks are worked on: `map`, or the `map` of a pool of threads."""

    def __call__(self, work: Callable[[A], B], items: Iterable[A], /) -> Iterable[B]:
        """Results of `work` for each item, in order."""
        ...


def encode(form: Form, tensor: Tensor, run: Run = map) -> Pieces | None:
    """The planes of a contiguous `tensor`; None if it is too small for them."""
    if form.n_bytes < LEAST_BYTES:
        return None
    words, n_columns = as_words(tensor), columns(form)
    parts = blocks(form.numel, block_length(n_columns))
    most_bytes = planes.most_bytes(parts[0].stop, words.itemsize)
    out = memory.empty(len(parts) * most_bytes, np.uint8).reshape(len(parts), most_bytes)

    def block(part: tuple[slice, U8]) -> Pieces:
        return [planes.encode(words[part[0]], n_columns, form.dtype.is_floating_point, part[1])]

    return assembled(form, run(block, zip(parts, out, strict=True)))


def decode(form: Form, source: Cursor, run: Run = map) -> Tensor:
    """The tensor of a chunk of planes.

    Raises:
        FormatError: the chunk violates the specification.
    """
    words = memory.empty(form.numel, UNSIGNED[form.dtype.itemsize])
    n_columns = columns(form)

    def block(part: tuple[slice, Cursor]) -> None:
        planes.decode(part[1], words[part[0]], n_columns, form.dtype.is_floating_point)

    for _ in run(block, sections(form, source)):
        pass
    return as_tensor(words, form, source)


def parts(form: Form, source: Cursor) -> Counter[str]:
    """Part → bytes of a chunk of planes; they add up to its length."""

    def block(n: int, inner: Cursor) -> Counter[str]:
        return planes.measure(inner, n, form.dtype.itemsize, columns(form))

    return summed(form, source, block)


def summed(form: Form, source: Cursor, measure: Callable[[int, Cursor], Counter[str]]) -> Counter[str]:
    """What the parts of all blocks take, and the rest of the chunk as headers."""
    whole = len(source)
    found: Counter[str] = Counter()
    for part, inner in sections(form, source):
        found += measure(part.stop - part.start, inner)
    found["plane headers"] += whole - found.total()
    return found


def columns(form: Form) -> int:
    """The length of a row; 0 for a tensor that has none."""
    return form.numel // form.shape[0] if len(form.shape) > 1 else 0


def block_length(n_columns: int) -> int:
    """Elements in a block: whole rows, unless they are longer."""
    return n_columns * (BLOCK // n_columns) if 0 < n_columns <= BLOCK else BLOCK


def blocks(n: int, length: int) -> list[slice]:
    """`n` elements in blocks of `length`, the last one shorter."""
    return [slice(i, min(i + length, n)) for i in range(0, n, length)]


def assembled(form: Form, coded: Iterable[Pieces]) -> Pieces:
    """Blocks, after their number of elements and their lengths."""
    each = list(coded)
    head = varint(block_length(columns(form))) + b"".join(varint(n_bytes(pieces)) for pieces in each)
    return [head, *chain.from_iterable(each)]


def n_bytes(pieces: Pieces) -> int:
    """The length of all pieces."""
    return sum(map(len, pieces))


def sections(form: Form, source: Cursor) -> list[tuple[slice, Cursor]]:
    """The blocks of a chunk: which elements, and their bytes."""
    length = source.varint()
    if not length or -(-form.numel // length) > len(source):
        raise source.error(f"lengths of blocks of {length} elements", f"{len(source)} more bytes")
    which = blocks(form.numel, length)
    lengths = [source.varint() for _ in which]
    found = [(part, Cursor(source.take(n), source.place)) for part, n in zip(which, lengths, strict=True)]
    if len(source):
        raise source.error("the last block's end", f"{len(source)} more bytes")
    return found


def raw_bytes(tensor: Tensor) -> Buffer:
    """A tensor's elements in row-major order; its own memory if they lie so."""
    if not tensor.numel():
        return b""
    raw: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(raw)


def as_words(tensor: Tensor) -> Words:
    """A contiguous tensor's memory as unsigned integers, flat."""
    raw = tensor.reshape(-1).view(torch.uint8).numpy()
    return raw.view(UNSIGNED[tensor.dtype.itemsize])


def as_tensor(words: Words, form: Form, source: Cursor) -> Tensor:
    """The inverse of `as_words`; FormatError where a boolean is neither 0 nor 1."""
    raw = torch.from_numpy(words.view(np.uint8))
    if form.dtype == torch.bool and raw.max() > 1:
        raise source.error("bytes 0 and 1 for booleans", str(int(raw.max())))
    return raw.view(form.dtype).reshape(form.shape)
