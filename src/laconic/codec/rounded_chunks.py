"""Chunks of rounded tensors: the dequantizer, then the integers.

`docs/format.md`, "Grid", "Rows" and "Codebook", is the specification. A new dequantizer is one more entry of
`DEQUANTIZERS`, and a case of `_write` and of `_read`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from laconic.codec.spec import GRID_DTYPES, Method, TensorSpec
from laconic.coding import stream
from laconic.coding.bitio import Cursor, varint
from laconic.core.jit import F64
from laconic.model.modules import raw_bytes
from laconic.quantization import rounded
from laconic.quantization.rounded import CodebookValues, Dequantizer, PerRowScale, PerTensorScale, Rounded

N_SCALE_BYTES = 2
# Method → the dequantizer, and what its bytes are called in a ledger.
DEQUANTIZERS: Mapping[Method, tuple[type[Dequantizer], str]] = {
    Method.GRID: (PerTensorScale, "scale"),
    Method.ROWS: (PerRowScale, "scales"),
    Method.CODEBOOK: (CodebookValues, "values"),
}


def encode(spec: TensorSpec, found: Rounded) -> tuple[Method, bytes]:
    """The method under which a file holds a rounded tensor, and its chunk."""
    method = next(method for method, (kind, _) in DEQUANTIZERS.items() if isinstance(found.dequantizer, kind))
    return method, _write(found.dequantizer) + stream.write(found.q, spec.layout)


def decode(spec: TensorSpec, source: Cursor) -> Tensor:
    """The tensor of a chunk, which is not empty; FormatError if the chunk violates the specification."""
    dequantizer = _read(spec, source)
    q = stream.read(source, spec.layout)
    try:
        return dequantizer.dequantize(q, spec.shape, spec.dtype)
    except rounded.OutOfRangeError as error:
        raise source.error(error.expected, error.found) from error


def parts(spec: TensorSpec, source: Cursor) -> Mapping[str, int]:
    """Part → bytes of a chunk; they add up to its length."""
    _read(spec, source)
    return {DEQUANTIZERS[spec.method][1]: source.at, **stream.measure(source, spec.layout)}


def symbol_model(spec: TensorSpec, source: Cursor) -> str:
    """The name of the symbol model that codes the integers of a chunk which `decode` accepts."""
    _read(spec, source)
    return stream.symbol_model(source)


def scale_bytes(scales: float | F64) -> bytes:
    """The bytes of one or more bfloat16 scales: the upper halves of their float32 bits."""
    return (np.asarray(scales, np.float32).view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()


def read_scales(spec: TensorSpec, source: Cursor, n: int) -> F64:
    """The next `n` scales; FormatError if one is not positive and finite, or the type has no grid."""
    if spec.dtype not in GRID_DTYPES:
        raise source.error("a floating type on the grid", str(spec.dtype))
    bits = np.frombuffer(source.take(n * N_SCALE_BYTES), "<u2").astype(np.uint32)
    scales = (bits << np.uint32(16)).view(np.float32)
    wrong = scales[~((scales > 0) & (scales < math.inf))]
    if wrong.size:
        raise source.error("a positive finite scale", f"{wrong[0]}")
    return scales.astype(np.float64)


def read_scale(spec: TensorSpec, source: Cursor) -> float:
    """The next scale; errors as `read_scales`."""
    return float(read_scales(spec, source, 1)[0])


def _write(dequantizer: Dequantizer) -> bytes:
    match dequantizer:
        case CodebookValues(values=values, origin=origin):
            return varint(len(values)) + bytes(raw_bytes(values)) + varint(origin)
        case PerRowScale(scales=scales):
            return scale_bytes(scales)
        case _:
            assert isinstance(dequantizer, PerTensorScale)
            return scale_bytes(dequantizer.scale)


def _read(spec: TensorSpec, source: Cursor) -> Dequantizer:
    """The inverse of `_write`; FormatError if the bytes violate the specification."""
    if spec.method is Method.GRID:
        return PerTensorScale(read_scale(spec, source))
    if spec.method is Method.ROWS:
        return PerRowScale(read_scales(spec, source, spec.layout.n_rows))
    n = source.varint()
    if not 1 <= n <= rounded.MAX_VALUES:
        raise source.error(f"1 to {rounded.MAX_VALUES:,} values", f"{n:,}")
    values = torch.frombuffer(bytearray(source.take(n * spec.dtype.itemsize)), dtype=spec.dtype)
    exact = values.double()
    if not (exact.isfinite().all() and (exact[1:] > exact[:-1]).all()):
        raise source.error("finite values in ascending order", "others")
    origin = source.varint()
    if origin >= n:
        raise source.error(f"an origin below {n:,}", f"{origin:,}")
    return CodebookValues(values, origin)
