"""From a tensor to the bytes of its chunk and back: quantiser × symbol model × coder.

`docs/format.md`, "Chunks", is the specification. A tensor is coded as its quantiser rounds it where that
keeps what it promises in fewer bytes, otherwise exactly; in planes, or by its difference from a parent's
tensor, where that is shorter; so coding never makes a tensor larger.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from laconic import delta, lossless
from laconic.coding import stream
from laconic.coding.bits import Buffer, Cursor, Pieces
from laconic.errors import NonFiniteError, UnsupportedError
from laconic.forms import DTYPES, GRID_DTYPES, Form, Method
from laconic.lossless import Run
from laconic.quantization import grid
from laconic.quantization.grid import Grid, Rounder
from laconic.quantization.legends import LEGENDS, Rounded


def encode(
    name: str, tensor: Tensor, rounder: Rounder | None, parent: Tensor | None = None, run: Run = map
) -> tuple[Form, Pieces]:
    """Code a tensor of any shape as the quantiser rounds it, or exactly where that is shorter or asked for.

    Args:
        name: of the tensor.
        tensor: its values.
        rounder: the quantiser's for this tensor; None codes exactly.
        parent: the tensor to code the difference from, where it has the same shape and type.
        run: how blocks of a large tensor are worked on.

    Returns:
        Its form, and its chunk in pieces.

    Raises:
        UnsupportedError: the tensor's type or layout has no place in a file, or its difference is to be
            rounded by something else than a `Grid`.
        NonFiniteError: a tensor to be quantised holds NaN or infinity.
    """
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
        raise UnsupportedError(f"{name}: a file holds no tensor of {tensor.dtype}, {tensor.layout}")
    tensor = tensor.detach().cpu().contiguous()
    form = Form(name, tensor.dtype, tuple(tensor.shape), Method.EXACT)
    if parent is not None:
        parent = parent.detach().cpu().contiguous() if _alike(tensor, parent) else None
    if rounder and tensor.dtype in GRID_DTYPES and form.numel:
        _refuse_nonfinite(form, tensor)
        if parent is not None:
            if not isinstance(rounder, Grid):
                raise UnsupportedError(f"{name}: expected a Grid for a difference, found {rounder}")
            pieces = delta.encode_on_grid(form, tensor, parent, rounder)
            if pieces is not None and lossless.n_bytes(pieces) < form.n_bytes:
                return _as(form, Method.DELTA), pieces
        if found := rounder.rounded(tensor):
            chunk = _chunk(form, found)
            if len(chunk) < form.n_bytes:
                return _as(form, found.legend.method), [chunk]
    if form.numel:
        method, pieces = _encode_exactly(form, tensor, parent, run)
        if pieces is not None and lossless.n_bytes(pieces) < form.n_bytes:
            return _as(form, method), pieces
    return form, [lossless.raw_bytes(tensor)]


def decode(form: Form, chunk: Buffer, parent: Tensor | None = None, run: Run = map) -> Tensor:
    """The tensor that `chunk` holds; a difference needs the `parent`'s tensor.

    Raises:
        FormatError: the chunk violates the specification, or the parent has another shape or type.
    """
    source = Cursor(chunk, form.name)
    if form.method is Method.EXACT:
        return _decode_exact(form, source)
    if form.method in LEGENDS and form.dtype not in GRID_DTYPES:  # also where it has no elements
        raise source.error("a floating type on the grid or with values", str(form.dtype))
    if not form.numel:
        _expect_bytes(source, 0)
        return torch.empty(form.shape, dtype=form.dtype)
    if form.method is Method.PLANES:
        return lossless.decode(form, source, run)
    if form.method is Method.DELTA:
        if parent is None or (tuple(parent.shape), parent.dtype) != (form.shape, form.dtype):
            found = "none" if parent is None else f"{tuple(parent.shape)}, {parent.dtype}"
            raise source.error(f"a parent's tensor of {form.shape}, {form.dtype}", found)
        return delta.decode(form, source, parent.detach().cpu().contiguous(), run)
    legend = LEGENDS[form.method].read(form, source)
    return legend.tensor(form, stream.read(source, form.numel, form.n_rows, form.kernel), source)


def parts(form: Form, chunk: Buffer) -> Mapping[str, int]:
    """Part → bytes of a chunk; they add up to its length."""
    if form.method is Method.EXACT or not form.numel:
        return {"exact values": len(chunk)}
    source = Cursor(chunk, form.name)
    if form.method is Method.PLANES:
        return lossless.parts(form, source)
    if form.method is Method.DELTA:
        return delta.parts(form, source)
    kind = LEGENDS[form.method]
    kind.read(form, source)
    return {kind.part: source.at, **stream.measure(source, form.numel, form.n_rows)}


def model(form: Form, chunk: Buffer) -> str | None:
    """The name of the model that codes a chunk which `decode` accepts; None where there is no stream."""
    if form.method not in LEGENDS or not form.numel:
        return None
    source = Cursor(chunk, form.name)
    LEGENDS[form.method].read(form, source)
    return stream.model(source)


def _as(form: Form, method: Method) -> Form:
    return Form(form.name, form.dtype, form.shape, method)


def _alike(tensor: Tensor, parent: Tensor) -> bool:
    return parent.shape == tensor.shape and parent.dtype == tensor.dtype and parent.layout == torch.strided


def _chunk(form: Form, found: Rounded) -> bytes:
    return found.legend.to_bytes() + stream.write(found.q, form.n_rows, form.kernel)


def _encode_exactly(
    form: Form, tensor: Tensor, parent: Tensor | None, run: Run
) -> tuple[Method, Pieces | None]:
    """By a difference; else in planes, or on the grid that the tensor is on already, if that is shorter."""
    if parent is not None:
        by_difference, alone = delta.first_block(form, tensor, parent)
        if by_difference < alone:
            return Method.DELTA, delta.encode(form, tensor, parent, run)
    in_planes = lossless.encode(form, tensor, run)
    if tensor.dtype in GRID_DTYPES and (found := grid.exactly(tensor)):
        chunk = _chunk(form, found)
        if in_planes is None or len(chunk) < lossless.n_bytes(in_planes):
            return Method.GRID, [chunk]
    return Method.PLANES, in_planes


def _refuse_nonfinite(form: Form, tensor: Tensor) -> None:
    weights = grid.widened(tensor).numpy()
    bad = grid.first_nonfinite(weights)
    if bad >= 0:
        index = tuple(int(i) for i in np.unravel_index(bad, form.shape))
        raise NonFiniteError(
            f"{form.name}{list(index)}: expected a finite number, found {weights[bad]}; "
            "exclude the tensor from compression to store it exactly"
        )


def _decode_exact(form: Form, source: Cursor) -> Tensor:
    _expect_bytes(source, form.n_bytes)
    if not form.numel:
        return torch.empty(form.shape, dtype=form.dtype)
    return lossless.as_tensor(np.frombuffer(bytearray(source.take(form.n_bytes)), np.uint8), form, source)


def _expect_bytes(source: Cursor, n_bytes: int) -> None:
    if len(source) != n_bytes:
        raise source.error(f"a chunk of {n_bytes} bytes", f"{len(source)}")
