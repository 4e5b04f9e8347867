"""Chunks that hold a tensor by its difference from another of the same name, shape and type: its parent's.

Exactly: floats become integers in their own order (so that neighbouring floats are one apart), and the difference is
coded as its length in bits, which compresses, and the bits below its first, which do not. The length follows the
parent's exponent, because an update of one size is many units of a small weight's last place and few of a large one's.
So each block is sorted by that exponent, and the classes of rows find the scales. The reader has the parent, so the
order costs nothing.

On a grid: w ≈ p + q·Δ, where ‖w − ŵ‖ is bounded relative to ‖w‖, not to the difference.
"""

# torch.from_numpy and NumPy's dtypes are typed in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from laconic.codec import exact
from laconic.codec.spec import GRID_DTYPES, TensorSpec
from laconic.coding import planes, stream
from laconic.coding.bitio import Cursor, Pieces
from laconic.coding.planes import Words
from laconic.core.jit import I32, U8, kernel
from laconic.core.threads import Map
from laconic.quantization import grid
from laconic.quantization.grid import PASS_ELEMENTS, Grid, within_error
from laconic.quantization.rounded import N_SCALE_BYTES, PerTensorScale

EXACT, GRID = range(2)


def encode(spec: TensorSpec, tensor: Tensor, parent: Tensor, run: Map = map) -> Pieces:
    """The exact difference of contiguous tensors of the same shape and type, which are not empty."""
    words, base = exact.as_words(tensor), exact.as_words(parent)

    def block(part: slice) -> Pieces:
        return _encode_block(words[part], base[part], spec.dtype.is_floating_point)

    return [bytes([EXACT]), *exact.assembled(spec, run(block, exact.blocks(spec)))]


def saves(spec: TensorSpec, tensor: Tensor, parent: Tensor) -> bool:
    """Whether the first block is shorter as a difference than in planes."""
    part, floating = exact.blocks(spec)[0], spec.dtype.is_floating_point
    words, base = exact.as_words(tensor)[part], exact.as_words(parent)[part]
    out = np.empty(planes.most_bytes(words.size, words.itemsize), np.uint8)
    alone = planes.encode(words, exact.columns(spec), floating, out)
    return exact.n_bytes(_encode_block(words, base, floating)) < len(alone)


def encode_on_grid(spec: TensorSpec, tensor: Tensor, parent: Tensor, quantizer: Grid) -> Pieces | None:
    """The difference on a grid, such that ‖w − ŵ‖ ≤ relative_error · ‖w‖; None if a grid does not help.

    Source: the difference's own relative error is the allowed one times ‖w‖ / ‖w − p‖.
    """
    flat, base = tensor.reshape(-1), parent.reshape(-1)
    weights = grid.widened(tensor)
    difference = (weights - grid.widened(parent)).numpy()
    energy, moved = grid.moments(weights.numpy())[0], grid.moments(difference)[0]
    if not moved < energy < math.inf:
        return None
    for margin in grid.MARGINS:
        allowed = quantizer.relative_error * margin * math.sqrt(energy / moved) if moved else 1.0
        if allowed >= 1:  # every weight stays at the parent's
            scale, q = 1.0, np.zeros(difference.size, np.int32)
        else:
            scale = Grid(allowed).scale(difference)
            if scale is None:
                return None
            q = grid.quantize(difference, scale, math.inf)
        if within_error(flat, partial(_moved, base, q, scale), quantizer.relative_error):
            return [bytes([GRID]), PerTensorScale(scale).coded(), stream.write(q, spec.layout)]
    return None


def _moved(parent: Tensor, q: I32, scale: float, part: slice) -> Tensor:
    """The sums p + q·Δ: q·Δ is exact, a sum is rounded to float64, then to the type as on a grid."""
    total = parent[part].double() + torch.from_numpy(q[part]).double() * scale
    return total if parent.dtype == torch.float64 else total.float().to(parent.dtype)


def decode(spec: TensorSpec, source: Cursor, parent: Tensor, run: Map = map) -> Tensor:
    """The inverse of `encode` and `encode_on_grid`; FormatError if the chunk violates the specification."""
    if _mode(source) == GRID:
        source.expect(spec.dtype in GRID_DTYPES, "a floating type on the grid", spec.dtype)
        scale = PerTensorScale.read(source, spec.dtype, 1).scale
        q = stream.read(source, spec.layout)
        found = torch.empty(spec.numel, dtype=spec.dtype)
        for part in exact.blocks(spec, PASS_ELEMENTS):
            found[part] = _moved(parent.reshape(-1), q, scale, part)
        source.expect(found.isfinite().all(), "finite sums of parent and difference", "others")
        return found.reshape(spec.shape)
    base = exact.as_words(parent)

    def block(part: slice, inner: Cursor, words: Words) -> None:
        _decode_block(inner, words, base[part], spec.dtype.is_floating_point)

    return exact.decoded(spec, source, block, run)


def parts(spec: TensorSpec, source: Cursor) -> dict[str, int]:
    """Part → bytes of the chunk; they add up to its length."""
    if _mode(source) == EXACT:
        found = exact.summed(spec, source, lambda n, block: planes.measure_octaves(block, n))
        return found | {"plane headers": found["plane headers"] + 1}
    return {"scale": 1 + len(source.take(N_SCALE_BYTES)), **stream.measure(source, spec.layout)}


def _mode(source: Cursor) -> int:
    mode = source.byte()
    source.expect(mode <= GRID, "a delta's mode below 2", mode)
    return mode


def _encode_block(words: Words, base: Words, floating: bool) -> Pieces:
    difference = _ordered(words, floating)
    difference -= _ordered(base, floating)
    signed = difference.view(_signed(words))
    folded = (signed << 1) ^ (signed >> (8 * words.itemsize - 1))
    return planes.encode_octaves(folded.view(words.dtype)[_order(base, floating)])


def _decode_block(source: Cursor, words: Words, base: Words, floating: bool) -> None:
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
