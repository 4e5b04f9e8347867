"""Chunks that hold a tensor exactly, block by block: its words in planes, or by their difference from a parent's.

Blocks are coded on their own: by several threads, in bounded memory, with tables that follow the tensor.
`docs/format.md`, "Exact", "Planes" and "Delta", is the specification.

In a difference, floats become integers in their own order (so that neighbouring floats are one apart), and the
integers' difference is coded as its length in bits, which compresses, and the bits below its first, which do not. The
length follows the parent's exponent, because an update of one size is many units of a small weight's last place and few
of a large one's. So each block is sorted by that exponent, and the classes of rows find the scales. The reader has the
parent, so the order costs nothing.
"""

# torch.from_numpy and NumPy's dtypes are typed in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from laconic.codec.spec import TensorSpec
from laconic.coding import planes
from laconic.coding.bitio import Cursor, Pieces, varint
from laconic.coding.planes import Words
from laconic.core.jit import I32, U8, kernel
from laconic.core.threads import Map, large_empty

BLOCK = 1 << 19  # elements: larger ones code no shorter, smaller ones slower
MIN_PLANE_BYTES = 512  # a smaller tensor's tables cost what they save
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def encode(spec: TensorSpec, tensor: Tensor, run: Map = map) -> Pieces | None:
    """The planes of a contiguous `tensor`; None if it is too small for them."""
    if spec.n_bytes < MIN_PLANE_BYTES:
        return None
    words, n_columns, parts = as_words(tensor), _columns(spec), blocks(spec)
    most_bytes = planes.most_bytes(parts[0].stop, words.itemsize)
    out = large_empty(len(parts) * most_bytes, np.uint8).reshape(len(parts), most_bytes)

    def block(part: tuple[slice, U8]) -> Pieces:
        return [planes.encode(words[part[0]], n_columns, spec.dtype.is_floating_point, part[1])]

    return _assembled(spec, run(block, zip(parts, out, strict=True)))


def is_shorter_as_difference(spec: TensorSpec, tensor: Tensor, parent: Tensor) -> bool:
    """Whether the first block is shorter as a difference than in planes."""
    part, floating = blocks(spec)[0], spec.dtype.is_floating_point
    words, base = as_words(tensor)[part], as_words(parent)[part]
    out = np.empty(planes.most_bytes(words.size, words.itemsize), np.uint8)
    alone = planes.encode(words, _columns(spec), floating, out)
    return n_bytes(_encode_difference(words, base, floating)) < len(alone)


def encode_difference(spec: TensorSpec, tensor: Tensor, parent: Tensor, run: Map = map) -> Pieces:
    """The difference of contiguous tensors of the same shape and type, which are not empty."""
    words, base = as_words(tensor), as_words(parent)

    def block(part: slice) -> Pieces:
        return _encode_difference(words[part], base[part], spec.dtype.is_floating_point)

    return _assembled(spec, run(block, blocks(spec)))


def decode(spec: TensorSpec, source: Cursor, parent: Tensor | None = None, run: Map = map) -> Tensor:
    """The tensor of a chunk of planes, or of its difference from `parent`.

    FormatError if the chunk violates the specification.
    """
    words, floating = large_empty(spec.numel, UNSIGNED[spec.dtype.itemsize]), spec.dtype.is_floating_point
    base = None if parent is None else as_words(parent)

    def block(coded: tuple[slice, Cursor]) -> None:
        part, inner = coded
        if base is None:
            planes.decode(inner, words[part], _columns(spec), floating)
        else:
            _decode_difference(inner, words[part], base[part], floating)

    deque(run(block, _sections(spec, source)), maxlen=0)
    return as_tensor(words, spec, source)


def parts(spec: TensorSpec, source: Cursor, of_difference: bool = False) -> Counter[str]:
    """Part → bytes of a chunk of planes, or of a difference; they add up to its length."""
    whole = source.at + len(source)
    found: Counter[str] = Counter()
    for part, inner in _sections(spec, source):
        n = part.stop - part.start
        if of_difference:
            found += planes.measure_octaves(inner, n)
        else:
            found += planes.measure(inner, n, spec.dtype.itemsize, _columns(spec))
    found["plane headers"] += whole - found.total()
    return found


def _columns(spec: TensorSpec) -> int:
    """The length of a row; 0 for a tensor without rows."""
    return spec.numel // spec.shape[0] if len(spec.shape) > 1 else 0


def _block_length(spec: TensorSpec) -> int:
    """Elements in a block: whole rows, unless they are longer."""
    n_columns = _columns(spec)
    return n_columns * (BLOCK // n_columns) if 0 < n_columns <= BLOCK else BLOCK


def blocks(spec: TensorSpec, length: int = 0) -> list[slice]:
    """A tensor's elements in blocks of `length`, by default those of an encoder; the last one is shorter."""
    length = length or _block_length(spec)
    return [slice(i, min(i + length, spec.numel)) for i in range(0, spec.numel, length)]


def _assembled(spec: TensorSpec, coded: Iterable[Pieces]) -> Pieces:
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


def _encode_difference(words: Words, base: Words, floating: bool) -> Pieces:
    difference = _ordered(words, floating)
    difference -= _ordered(base, floating)
    signed = difference.view(_signed(words))
    folded = (signed << 1) ^ (signed >> (8 * words.itemsize - 1))
    return planes.encode_octaves(folded.view(words.dtype)[_order(base, floating)])


def _decode_difference(source: Cursor, words: Words, base: Words, floating: bool) -> None:
    folded = planes.decode_octaves(source, words.size, words.dtype)
    one = words.dtype.type(1)
    words[_order(base, floating)] = (folded >> one) ^ -(folded & one)
    words += _ordered(base, floating)
    words[:] = _ordered(words, floating)


def _ordered(words: Words, floating: bool) -> Words:
    """Floats' bits as integers in the floats' order, modulo the type's range; its own inverse."""
    if not floating:
        return words.copy()
    sign = words.view(_signed(words)) >> (8 * words.itemsize - 1)  # 0 or −1
    return words ^ (sign.view(words.dtype) >> words.dtype.type(1))


def _signed(words: Words) -> str:
    return f"i{words.itemsize}"


def _order(base: Words, floating: bool) -> I32 | slice:
    """The positions of a block sorted by the parent's exponent, stably; integers keep their order."""
    if not floating:
        return slice(None)
    exponents = np.empty(base.size, np.uint8)
    planes.extract(base, base.itemsize - 1, floating, exponents)
    return _sorted(exponents)


@kernel
def _sorted(keys: U8) -> I32:
    starts = np.zeros(257, np.int32)
    for key in keys:
        starts[key + 1] += 1
    for key in range(256):
        starts[key + 1] += starts[key]
    order = np.empty(keys.size, np.int32)
    for i in range(keys.size):
        order[starts[keys[i]]] = i
        starts[keys[i]] += 1
    return order
