"""Files of given integers: what `laconic.save` writes once the quantiser has chosen a step and rounded."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from laconic.codec.rounded_chunks import N_SCALE_BYTES
from laconic.codec.tensor import Method, TensorSpec
from laconic.coding import stream
from laconic.coding.bitio import Cursor
from laconic.file import container
from laconic.file.writer import drafted

Integers = Mapping[str, NDArray[np.int32]]


def write(path: Path, integers: Integers, steps: Mapping[str, float]) -> int:
    """Write float32 tensors, `integers` times their `steps` (bfloat16 numbers); the file's length."""
    with drafted(path, None) as draft:
        for name, q in integers.items():
            spec, chunk = _chunk(name, q, steps[name])
            draft.append(spec, [chunk])
        return draft.finish({}, {})


def _chunk(name: str, q: NDArray[np.int32], step: float) -> tuple[Form, bytes]:
    spec = TensorSpec(name, torch.float32, q.shape, Method.GRID)
    chunk = struct.pack("<f", step)[N_SCALE_BYTES:] + stream.write(q.reshape(-1), spec.n_rows, spec.kernel)
    if len(chunk) < spec.n_bytes:
        return spec, chunk
    return TensorSpec(name, torch.float32, q.shape, Method.EXACT), (q * np.float32(step)).astype("<f4").tobytes()


def read(path: Path) -> dict[str, NDArray[np.int32]]:
    """The integers of a file that `write` wrote, where all tensors stand on the grid."""
    with container.Reader(path) as reader:
        out = {}
        for name, entry in reader.entries.items():
            source = Cursor(reader.chunk(entry)[N_SCALE_BYTES:], name)
            spec = entry.spec
            out[name] = stream.read(source, spec.numel, spec.n_rows, spec.kernel).reshape(spec.shape)
        return out
