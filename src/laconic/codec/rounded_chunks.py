"""Chunks of rounded tensors: how each dequantizer is written, then the integers.

`docs/format.md`, "Grid", "Rows" and "Codebook", is the specification. A new dequantizer is one more entry of
`HEADS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.codec.spec import GRID_DTYPES, Method, TensorSpec
from laconic.coding import stream
from laconic.coding.bitio import Cursor, varint
from laconic.core.jit import F64
from laconic.model.modules import raw_bytes
from laconic.quantization.rounded import (
    MAX_VALUES,
    CodebookValues,
    Dequantizer,
    OutOfRangeError,
    PerRowScale,
    PerTensorScale,
    Rounded,
)

N_SCALE_BYTES = 2


@dataclass(frozen=True)
class Head:
    """What stands before the integers of a chunk.

    Attributes:
        kind: the dequantizer it holds.
        part: what its bytes are called in a ledger.
        write: from a dequantizer to bytes.
        read: the inverse; FormatError where the bytes violate the specification.
    """

    kind: type[Dequantizer]
    part: str
    write: Callable[[Any], bytes]
    read: Callable[[TensorSpec, Cursor], Dequantizer]


def encode(spec: TensorSpec, rounded: Rounded) -> tuple[Method, bytes]:
    """The method under which a file holds a rounded tensor, and its chunk."""
    kind = type(rounded.dequantizer)
    method = next(method for method, head in HEADS.items() if head.kind is kind)
    head = HEADS[method].write(rounded.dequantizer)
    return method, head + stream.write(rounded.q, spec.layout)


def decode(spec: TensorSpec, source: Cursor) -> Tensor:
    """The tensor of a chunk, which is not empty.

    Raises:
        FormatError: the chunk violates the specification.
    """
    dequantizer = HEADS[spec.method].read(spec, source)
    q = stream.read(source, spec.layout)
    try:
        return dequantizer.dequantize(q, spec.shape, spec.dtype)
    except OutOfRangeError as error:
        raise source.error(error.expected, error.found) from error


def parts(spec: TensorSpec, source: Cursor) -> Mapping[str, int]:
    """Part → bytes of a chunk; they add up to its length."""
    head = HEADS[spec.method]
    head.read(spec, source)
    return {head.part: source.at, **stream.measure(source, spec.layout)}


def symbol_model(spec: TensorSpec, source: Cursor) -> str:
    """The name of the symbol model that codes the integers of a chunk which `decode` accepts."""
    HEADS[spec.method].read(spec, source)
    return stream.symbol_model(source)


def scale_bytes(scales: float | F64) -> bytes:
    """The bytes of one or more scales, which are bfloat16: the upper halves of float32s' bits."""
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


def _write_codebook(found: CodebookValues) -> bytes:
    return varint(len(found.values)) + bytes(raw_bytes(found.values)) + varint(found.origin)


def _read_codebook(spec: TensorSpec, source: Cursor) -> CodebookValues:
    """Values, finite and ascending, and an origin among them."""
    n = source.varint()
    if not 1 <= n <= MAX_VALUES:
        raise source.error(f"1 to {MAX_VALUES:,} values", f"{n:,}")
    values = torch.frombuffer(bytearray(source.take(n * spec.dtype.itemsize)), dtype=spec.dtype)
    exact = values.double()
    if not (exact.isfinite().all() and (exact[1:] > exact[:-1]).all()):
        raise source.error("finite values in ascending order", "others")
    origin = source.varint()
    if origin >= n:
        raise source.error(f"an origin below {n:,}", f"{origin:,}")
    return CodebookValues(values, origin)


HEADS: Mapping[Method, Head] = {
    Method.GRID: Head(
        PerTensorScale,
        "scale",
        lambda found: scale_bytes(found.scale),
        lambda spec, source: PerTensorScale(read_scale(spec, source)),
    ),
    Method.ROWS: Head(
        PerRowScale,
        "scales",
        lambda found: scale_bytes(found.scales),
        lambda spec, source: PerRowScale(read_scales(spec, source, spec.layout.n_rows)),
    ),
    Method.CODEBOOK: Head(CodebookValues, "values", _write_codebook, _read_codebook),
}
