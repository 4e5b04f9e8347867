"""From a tensor to the bytes of its chunk and back: quantiser × symbol model × coder.

`docs/format.md`, "Chunks", is the specification. A tensor is coded on its quantiser's grid where that keeps
what it promises in fewer bytes, and exactly otherwise, so coding never makes a tensor larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from laconic.coding import stream
from laconic.coding.bits import Cursor
from laconic.errors import NonFiniteError, UnsupportedError
from laconic.jit import I32
from laconic.quantization import grid
from laconic.quantization.grid import Grid

DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)
GRID_DTYPES = DTYPES[:4]
N_STEP_BYTES = 2


class Method(IntEnum):
    """How a chunk holds its tensor, or what else it holds."""

    EXACT = 0
    GRID = 1
    TIED = 2
    PLAN = 3


@dataclass(frozen=True)
class Form:
    """What the directory tells about a tensor: enough to decode its chunk."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    method: Method

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of the decoded tensor."""
        return self.numel * self.dtype.itemsize

    @property
    def n_rows(self) -> int:
        """Rows that an integer stream groups: the first dimension of a matrix or more."""
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def n_kernel(self) -> int:
        """Elements of a convolution's kernel: those of the dimensions from the third on."""
        return math.prod(self.shape[2:])


def encode(name: str, tensor: Tensor, quantizer: Grid | None) -> tuple[Form, bytes]:
    """Code a tensor of any shape on the quantiser's grid, or exactly where that is shorter or asked for.

    Raises:
        UnsupportedError: the tensor's type or layout has no place in a file.
        NonFiniteError: a tensor to be quantised holds NaN or infinity.
    """
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
        raise UnsupportedError(f"{name}: a file holds no tensor of {tensor.dtype}, {tensor.layout}")
    tensor = tensor.detach().cpu().contiguous()
    form = Form(name, tensor.dtype, tuple(tensor.shape), Method.GRID)
    if quantizer and tensor.dtype in GRID_DTYPES:
        chunk = _encode_on_grid(form, tensor, quantizer)
        if chunk is not None and len(chunk) < form.n_bytes:
            return form, chunk
    return Form(name, tensor.dtype, tuple(tensor.shape), Method.EXACT), _raw(tensor)


def decode(form: Form, chunk: bytes) -> Tensor:
    """The tensor that `chunk` holds.

    Raises:
        FormatError: the chunk violates the specification.
    """
    source = Cursor(chunk, form.name)
    if form.method is Method.EXACT:
        return _decode_exact(form, source)
    if form.dtype not in GRID_DTYPES:
        raise source.error("a floating type on the grid", str(form.dtype))
    if not form.numel:
        _expect_bytes(source, 0)
        return torch.empty(form.shape, dtype=form.dtype)
    step = _read_step(source)
    q = stream.read(source, form.numel, form.n_rows, form.n_kernel)
    largest = torch.finfo(form.dtype).max
    if max(-int(q.min()), int(q.max())) * step > largest:
        raise source.error(f"values up to {largest:.5g}", "a larger q × step")
    return _on_grid(q, step, form.dtype).reshape(form.shape)


def parts(form: Form, chunk: bytes) -> Mapping[str, int]:
    """Part → bytes of a chunk; they add up to its length."""
    if form.method is Method.EXACT or not form.numel:
        return {"exact values": len(chunk)}
    source = Cursor(chunk, form.name)
    step = source.take(N_STEP_BYTES)
    return {"step": len(step), **stream.measure(source, form.numel, form.n_rows)}


def model(form: Form, chunk: bytes) -> str | None:
    """The name of the model that codes a chunk which `decode` accepts; None where there is no stream."""
    if form.method is not Method.GRID or not form.numel:
        return None
    return stream.model(Cursor(chunk[N_STEP_BYTES:], form.name))


def _encode_on_grid(form: Form, tensor: Tensor, quantizer: Grid) -> bytes | None:
    if not form.numel:
        return None
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    weights = tensor.to(wide).reshape(-1).numpy()
    bad = grid.first_nonfinite(weights)
    if bad >= 0:
        index = tuple(int(i) for i in np.unravel_index(bad, form.shape))
        raise NonFiniteError(
            f"{form.name}{list(index)}: expected a finite number, found {weights[bad]}; "
            "exclude the tensor from compression to store it exactly"
        )
    largest = torch.finfo(tensor.dtype).max
    peak = max(-float(weights.min()), float(weights.max()))
    for margin in (1.0, 0.97, 0.9):
        step = Grid(quantizer.relative_error * margin).step(weights)
        if step is None:
            return None
        q = grid.quantize(weights, step, largest)
        # Rounding to 16 bits, or down from the type's largest value, adds to the grid's own error.
        as_measured = tensor.dtype.itemsize > 2 and peak + step <= largest
        if as_measured or _keeps(q, step, tensor, quantizer):
            header = np.float32(step).view(np.uint32) >> np.uint32(16)
            return header.astype("<u2").tobytes() + stream.write(q, form.n_rows, form.n_kernel)
    return None


def _keeps(q: I32, step: float, tensor: Tensor, quantizer: Grid) -> bool:
    exact = tensor.reshape(-1).double()
    error = (_on_grid(q, step, tensor.dtype).double() - exact).square().sum()
    return bool(error <= quantizer.relative_error**2 * exact.square().sum())


def _on_grid(q: I32, step: float, dtype: torch.dtype) -> Tensor:
    weights = np.empty(q.size, np.float64 if dtype == torch.float64 else np.float32)
    grid.dequantize(q, step, weights)
    return torch.from_numpy(weights).to(dtype)


def _read_step(source: Cursor) -> float:
    bits = int.from_bytes(source.take(N_STEP_BYTES), "little")
    step = float(np.uint32(bits << 16).view(np.float32))
    if not 0 < step < math.inf:
        raise source.error("a positive finite step", f"{step}")
    return step


def _raw(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _decode_exact(form: Form, source: Cursor) -> Tensor:
    _expect_bytes(source, form.n_bytes)
    if not form.numel:
        return torch.empty(form.shape, dtype=form.dtype)
    raw = torch.frombuffer(bytearray(source.take(form.n_bytes)), dtype=torch.uint8)
    if form.dtype == torch.bool and raw.max() > 1:
        raise source.error("bytes 0 and 1 for booleans", str(int(raw.max())))
    return raw.view(form.dtype).reshape(form.shape)


def _expect_bytes(source: Cursor, n_bytes: int) -> None:
    if len(source) != n_bytes:
        raise source.error(f"a chunk of {n_bytes} bytes", f"{len(source)}")
