"""What a file holds, as plain values."""

from __future__ import annotations

import math
import os
from typing import Any

from laconic.codec.spec import Method
from laconic.codec.tensor import decode_tensor, symbol_model
from laconic.file.container import Entry, Reader
from laconic.model.modules import n_nonzero


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe the file's tensors: name, shape, dtype, method, model, sparsity, bits per weight, bytes.

    The model is that of a rounded tensor's integers, else None. Tensors are decoded one at a time to count their zeros,
    except differences, which need their parent: their sparsity is None, and so is the file's. Totals: weights,
    sparsity, bits per weight, bytes; what the file's plan removes; the parent's digest, if there are differences.

    Raises:
        FormatError: the file is damaged.
        LimitError: it would decode to more than the default limit.
    """
    with Reader(path) as reader:
        reader.check_limit(reader.entries)
        tensors = [_tensor(reader, entry) for entry in reader.entries.values()]
        stored = [tensor for tensor in tensors if tensor["method"] != "tied"]
        n_weights = sum(tensor["weights"] for tensor in stored)
        zeros = [tensor["zeros"] for tensor in stored]
        return {
            "file": os.fspath(path),
            "bytes": reader.n_bytes,
            "weights": n_weights,
            "sparsity": None if None in zeros else sum(zeros) / max(1, n_weights),
            "bits_per_weight": 8 * reader.n_bytes / max(1, n_weights),
            "plan": _plan(reader),
            "parent": reader.parent,
            "tensors": tensors,
        }


def _plan(reader: Reader) -> dict[str, Any] | None:
    plan = reader.plan
    if plan is None:
        return None
    removed = {name: math.prod(shape) - math.prod(plan.cut_shape(name)) for name, shape in plan.shapes.items()}
    return {
        "bytes": reader.n_plan_bytes,
        "tensors_cut": len(removed),
        "elements_removed": sum(removed.values()),
        "bypassed": list(plan.bypassed),
    }


def _tensor(reader: Reader, entry: Entry) -> dict[str, Any]:
    spec = entry.spec
    n_bytes, n = entry.n_bytes, max(1, spec.numel)
    holder = reader.entries[entry.tied_to] if entry.tied_to else entry
    chunk = reader.chunk(holder)
    zeros = None
    if holder.spec.method is not Method.DELTA:
        zeros = spec.numel - n_nonzero(decode_tensor(holder.spec, chunk))
    return {
        "name": spec.name,
        "shape": list(spec.shape),
        "dtype": str(spec.dtype).removeprefix("torch."),
        "method": spec.method.name.lower(),
        "model": symbol_model(spec, chunk),
        "tied_to": entry.tied_to,
        "weights": spec.numel,
        "bytes": n_bytes,
        "bits_per_weight": 8 * n_bytes / n,
        "zeros": zeros,
        "sparsity": None if zeros is None else zeros / n,
    }
