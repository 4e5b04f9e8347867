"""From a tensor to the bytes of its chunk and back: quantiser × symbol model × coder.

`docs/format.md`, "Chunks", is the specification. A tensor is coded as its quantiser rounds it if that keeps its promise
in fewer bytes, otherwise exactly: as its bytes, in planes, or by its difference from a parent's tensor, whichever is
shortest. So coding never makes a tensor larger.

A difference on a grid is w ≈ p + q·Δ, where ‖w − ŵ‖ is bounded relative to ‖w‖, not to the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from laconic.codec import exact
from laconic.codec.spec import DTYPES, GRID_DTYPES, Method, TensorSpec
from laconic.coding import stream
from laconic.coding.bitio import Buffer, Cursor, Pieces
from laconic.core.jit import I32
from laconic.core.threads import Map
from laconic.errors import FormatError, NonFiniteError, UnsupportedError
from laconic.model.modules import raw_bytes
from laconic.quantization import grid, rounded
from laconic.quantization.grid import PASS_ELEMENTS, Grid, Rounder, within_error
from laconic.quantization.rounded import N_SCALE_BYTES, Dequantizer, OutOfRangeError, PerTensorScale, Rounded

DELTA_EXACT, DELTA_ON_GRID = range(2)
# Method → the dequantizer, and what its bytes are called in a ledger.
DEQUANTIZERS: Mapping[Method, tuple[type[Dequantizer], str]] = {
    Method.GRID: (PerTensorScale, "scale"),
    Method.ROWS: (rounded.PerRowScale, "scales"),
    Method.CODEBOOK: (rounded.CodebookValues, "values"),
}


def encode_tensor(
    name: str, tensor: Tensor, rounder: Rounder | None, parent: Tensor | None = None, run: Map = map
) -> tuple[TensorSpec, Pieces]:
    """A tensor's spec, and its chunk in pieces.

    It is coded as `rounder` rounds it, or exactly if that is shorter or `rounder` is None; by its difference from a
    `parent` of the same shape and type. `run` maps the blocks of a large tensor.

    Raises:
        UnsupportedError: a file cannot hold the tensor's type or layout, or round its difference but by a `Grid`.
        NonFiniteError: a tensor to be quantised holds NaN or infinity.
    """
    if tensor.is_meta:
        raise UnsupportedError(f"{name}: expected a tensor with values, found one on the meta device")
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
        raise UnsupportedError(f"{name}: a file holds no tensor of {tensor.dtype}, {tensor.layout}")
    tensor = tensor.detach().cpu().contiguous()
    spec = TensorSpec(name, tensor.dtype, tuple(tensor.shape), Method.EXACT)
    if parent is not None:
        same = (parent.shape, parent.dtype, parent.layout) == (tensor.shape, tensor.dtype, torch.strided)
        parent = parent.detach().cpu().contiguous() if same else None
    for method, pieces in _candidates(spec, tensor, rounder, parent, run):
        if pieces is not None and exact.n_bytes(pieces) < spec.n_bytes:
            return replace(spec, method=method), pieces
    return spec, [raw_bytes(tensor)]


def _candidates(
    spec: TensorSpec, tensor: Tensor, rounder: Rounder | None, parent: Tensor | None, run: Map
) -> Iterator[tuple[Method, Pieces | None]]:
    """The chunks to try, in order: the first one shorter than the tensor is taken."""
    if rounder and tensor.dtype in GRID_DTYPES and spec.numel:
        _refuse_nonfinite(spec, tensor)
        if parent is not None:
            if not isinstance(rounder, Grid):
                raise UnsupportedError(f"{spec.name}: expected a Grid for a difference, found {rounder}")
            yield Method.DELTA, _encode_difference_on_grid(spec, tensor, parent, rounder)
        if found := rounder.rounded(tensor):
            yield _encode_rounded(spec, found)
    if spec.numel:
        yield _encode_exactly(spec, tensor, parent, run)


def decode_tensor(spec: TensorSpec, chunk: Buffer, parent: Tensor | None = None, run: Map = map) -> Tensor:
    """The tensor that `chunk` holds; a difference needs the `parent`'s tensor.

    FormatError if the chunk violates the specification, or the parent has another shape or type.
    """
    source = Cursor(chunk, spec.name)
    if spec.method is Method.EXACT or not spec.numel:
        source.expect(len(source) == spec.n_bytes, f"a chunk of {spec.n_bytes} bytes", len(source))
    if spec.method in DEQUANTIZERS:  # also where it has no elements
        source.expect(spec.dtype in GRID_DTYPES, "a floating type on the grid or with values", spec.dtype)
    if not spec.numel:
        return torch.empty(spec.shape, dtype=spec.dtype)
    if spec.method is Method.EXACT:
        return exact.as_tensor(source.rest().copy(), spec, source)
    if spec.method is Method.PLANES:
        return exact.decode(spec, source, None, run)
    if spec.method is Method.DELTA:
        if parent is None or (tuple(parent.shape), parent.dtype) != (spec.shape, spec.dtype):
            found = "none" if parent is None else f"{tuple(parent.shape)}, {parent.dtype}"
            raise source.error(f"a parent's tensor of {spec.shape}, {spec.dtype}", found)
        parent = parent.detach().cpu().contiguous()
        if _delta_mode(source) == DELTA_EXACT:
            return exact.decode(spec, source, parent, run)
        return _decode_difference_on_grid(spec, source, parent)
    dequantizer = _read_dequantizer(spec, source)
    q = stream.read(source, spec.layout)
    try:
        return dequantizer.dequantize(q, spec.shape, spec.dtype)
    except OutOfRangeError as error:
        raise FormatError(f"{source.place}, byte {source.at}: {error}") from error


def tensor_parts(spec: TensorSpec, chunk: Buffer) -> Mapping[str, int]:
    """Part → bytes of a chunk; they add up to its length."""
    if spec.method is Method.EXACT or not spec.numel:
        return {"exact values": len(chunk)}
    source = Cursor(chunk, spec.name)
    if spec.method is Method.PLANES:
        return exact.parts(spec, source)
    if spec.method is Method.DELTA:
        if _delta_mode(source) == DELTA_ON_GRID:
            return {"scale": 1 + len(source.take(N_SCALE_BYTES)), **stream.measure(source, spec.layout)}
        return exact.parts(spec, source, of_difference=True)
    source.expect(spec.dtype in GRID_DTYPES, "a floating type on the grid or with values", spec.dtype)
    _read_dequantizer(spec, source)
    return {DEQUANTIZERS[spec.method][1]: source.at, **stream.measure(source, spec.layout)}


def symbol_model(spec: TensorSpec, chunk: Buffer) -> str | None:
    """The name of the model that codes a chunk which `decode` accepts; None where there is no stream."""
    if spec.method not in DEQUANTIZERS or not spec.numel:
        return None
    source = Cursor(chunk, spec.name)
    _read_dequantizer(spec, source)
    return stream.symbol_model(source)


def _encode_exactly(spec: TensorSpec, tensor: Tensor, parent: Tensor | None, run: Map) -> tuple[Method, Pieces | None]:
    """By a difference; else in planes, or on the grid that the tensor is on already, if that is shorter."""
    if parent is not None and exact.is_shorter_as_difference(spec, tensor, parent):
        return Method.DELTA, [bytes([DELTA_EXACT]), *exact.encode_difference(spec, tensor, parent, run)]
    in_planes = exact.encode(spec, tensor, run)
    if tensor.dtype in GRID_DTYPES and (found := grid.exactly(tensor)):
        method, pieces = _encode_rounded(spec, found)
        if in_planes is None or exact.n_bytes(pieces) < exact.n_bytes(in_planes):
            return method, pieces
    return Method.PLANES, in_planes


def _encode_rounded(spec: TensorSpec, found: Rounded) -> tuple[Method, Pieces]:
    method = next(method for method, (kind, _) in DEQUANTIZERS.items() if isinstance(found.dequantizer, kind))
    return method, [found.dequantizer.coded(), stream.write(found.q, spec.layout)]


def _read_dequantizer(spec: TensorSpec, source: Cursor) -> Dequantizer:
    return DEQUANTIZERS[spec.method][0].read(source, spec.dtype, spec.layout.n_rows)


def _encode_difference_on_grid(spec: TensorSpec, tensor: Tensor, parent: Tensor, quantizer: Grid) -> Pieces | None:
    """The difference on a grid, such that ‖w − ŵ‖ ≤ relative_error · ‖w‖; None if a grid does not help.

    The difference's own relative error is the allowed one times ‖w‖ / ‖w − p‖.
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
            return [bytes([DELTA_ON_GRID]), PerTensorScale(scale).coded(), stream.write(q, spec.layout)]
    return None


def _moved(parent: Tensor, q: I32, scale: float, part: slice) -> Tensor:
    """The sums p + q·Δ: q·Δ is exact, a sum is rounded to float64, then to the type as on a grid."""
    total = parent[part].double() + torch.from_numpy(q[part]).double() * scale  # pyright: ignore[reportUnknownMemberType]
    return total if parent.dtype == torch.float64 else total.float().to(parent.dtype)


def _decode_difference_on_grid(spec: TensorSpec, source: Cursor, parent: Tensor) -> Tensor:
    source.expect(spec.dtype in GRID_DTYPES, "a floating type on the grid", spec.dtype)
    scale = PerTensorScale.read(source, spec.dtype, 1).scale
    q = stream.read(source, spec.layout)
    found = torch.empty(spec.numel, dtype=spec.dtype)
    for part in exact.blocks(spec, PASS_ELEMENTS):
        found[part] = _moved(parent.reshape(-1), q, scale, part)
    source.expect(found.isfinite().all(), "finite sums of parent and difference", "others")
    return found.reshape(spec.shape)


def _delta_mode(source: Cursor) -> int:
    mode = source.byte()
    source.expect(mode <= DELTA_ON_GRID, "a delta's mode below 2", mode)
    return mode


def _refuse_nonfinite(spec: TensorSpec, tensor: Tensor) -> None:
    weights = grid.widened(tensor).numpy()
    bad = int(np.isfinite(weights).argmin())
    if not np.isfinite(weights[bad]):
        index = tuple(int(i) for i in np.unravel_index(bad, spec.shape))
        found = f"{weights[bad]}; exclude the tensor from compression to store it exactly"
        raise NonFiniteError(f"{spec.name}{list(index)}: expected a finite number, found {found}")
