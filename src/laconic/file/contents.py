"""What a file holds: described as plain values, or exported to safetensors, in one file or in Hugging Face's shards.

A safetensors file is the length of a header as a u64, the header, which is JSON, and the tensors' bytes one after
another. The `.lac` file's directory tells all lengths, so the header is written first, then each decoded tensor.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from laconic.codec.spec import Method, TensorSpec
from laconic.codec.tensor import decode_tensor, symbol_model
from laconic.core.atomic import atomic, begin_to_store, check_output
from laconic.file.container import Entry, Reader
from laconic.file.save_load import ANY_WORK, State, decode_each, files_of, open_parent
from laconic.file.workers import FileOptions
from laconic.formats.checkpoints import TYPES
from laconic.model.modules import n_nonzero, raw_bytes

SHARD_BYTES = 5 << 30
CODES = {dtype: code for code, dtype in TYPES.items()}


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
    holder = reader.holder(spec.name)
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


def export(
    reader: Reader,
    output: Path,
    names: Iterable[str],
    base: State | None = None,
    shard_bytes: int = SHARD_BYTES,
    work: FileOptions = ANY_WORK,
) -> list[Path]:
    """Decode tensors of an open file into safetensors, in bounded memory; the files written.

    More than `shard_bytes` go into ``NAME-00001-of-0000N.safetensors`` and so on, and ``NAME.safetensors.index.json``
    maps tensors to files. Each file is written whole or not at all. Tied tensors are written under each name.

    Raises:
        FormatError: the file is damaged.
        MismatchError: the parent is missing or another.
        OutputError: a file to write is a device, a pipe, a link or a folder, or is one of those that are read.
    """
    parent = None if base is None else open_parent(base)
    written = shards(reader, output, names, shard_bytes)
    for path in written:
        check_output(path, [reader.path, *files_of(parent)])
    specs = [spec for shard in written.values() for spec in shard]
    with closing(decode_each(reader, [spec.name for spec in specs], parent, work)) as tensors:
        for path, shard in written.items():
            if not shard and len(written) > 1:
                continue  # the index
            with atomic(path) as file:
                _write_header(file, shard)
                for spec in shard:
                    file.write(raw_bytes(next(tensors)))
                    begin_to_store(file, spec.n_bytes)
        next(tensors, None)  # the last one is done as well
    if len(written) > 1:
        weight_map = {spec.name: path.name for path, shard in written.items() for spec in shard}
        metadata = {"total_size": sum(spec.n_bytes for spec in specs)}
        with atomic(list(written)[-1]) as file:
            file.write(json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2).encode())
    return list(written)


def shards(reader: Reader, output: Path, names: Iterable[str], shard_bytes: int) -> dict[Path, list[TensorSpec]]:
    """The files to write, with their tensors; of several, the last is the index, without any."""
    # As safetensors has them: large types first, so that all lie at multiples of their length.
    specs = sorted((reader.entries[n].spec for n in names), key=lambda spec: (-spec.dtype.itemsize, spec.name))
    parts = _shards(specs, shard_bytes)
    n, stem = len(parts), output.name.removesuffix(".safetensors")
    if n == 1:
        return {output: specs}
    written = {output.with_name(f"{stem}-{i:05}-of-{n:05}.safetensors"): part for i, part in enumerate(parts, 1)}
    return written | {output.with_name(f"{stem}.safetensors.index.json"): []}


def _shards(specs: list[TensorSpec], most_bytes: int) -> list[list[TensorSpec]]:
    shards: list[list[TensorSpec]] = [[]]
    n_bytes = 0
    for spec in specs:
        if shards[-1] and n_bytes + spec.n_bytes > most_bytes:
            shards.append([])
            n_bytes = 0
        shards[-1].append(spec)
        n_bytes += spec.n_bytes
    return shards


def _write_header(file: BinaryIO, specs: list[TensorSpec]) -> None:
    header: dict[str, Mapping[str, object]] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.n_bytes
        header[spec.name] = {"dtype": CODES[spec.dtype], "shape": spec.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
