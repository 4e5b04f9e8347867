"""Reading the weights of a trained network, and nothing else, from a file or a folder.

Safetensors files, their indices of shards and PyTorch's files (zip, or the older bare pickle) are recognised by their
content, not their name. PyTorch's are read with ``weights_only=True``, which refuses every pickled object that is not a
tensor or a plain container, so reading runs no code from the file.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic.errors import CheckpointError

_EXPECTED = "expected a safetensors file or a PyTorch checkpoint"
_WRAPPERS = ("state_dict", "model")  # where training scripts keep the weights beside other things
_PREFIX = "module."  # what DataParallel puts before every name


# By safetensors' names.
TYPES = (
    {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    | {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "U8": torch.uint8, "BOOL": torch.bool}
    | {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8}
)


class Checkpoint(Mapping[str, Tensor]):
    """Named tensors in safetensors files, each read on access and not kept.

    Attributes:
        specs: names to tensors on the device ``meta``: shapes and types without values.
    """

    def __init__(self, files: Mapping[str, Path], specs: Mapping[str, Tensor]) -> None:
        shared = _PREFIX if all(name.startswith(_PREFIX) for name in specs) else ""
        self._stored = {name.removeprefix(shared): name for name in specs}
        self._files = files
        self.specs = {name: specs[stored] for name, stored in self._stored.items()}

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import safe_open

        stored = self._stored[name]
        # Opened anew, so that the pages read so far are given back.
        with safe_open(self._files[stored], framework="pt") as file:
            return file.get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, on the CPU; details and errors as for `open_checkpoint`."""
    return dict(open_checkpoint(path))


def open_checkpoint(path: str | Path) -> Mapping[str, Tensor]:
    """The named tensors of a safetensors file, a folder or an index of such files, or a PyTorch file, on the CPU.

    Those of safetensors are read on access. A PyTorch file is searched for tensors at the top level, then under
    ``state_dict`` and ``model``. A ``module.`` that begins every name is dropped.

    Raises:
        CheckpointError: the file is neither kind, is damaged, holds objects other than tensors and plain containers, or
            has no named tensors.
        OSError: a file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip, or a pickle of protocol 2 and later
        tensors = _named_tensors(path, _read_pytorch(path))
        if all(name.startswith(_PREFIX) for name in tensors):
            tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        return tensors
    if head[8:] == b"{":  # JSON, after its length in 8 bytes
        return _open_safetensors([path])
    if head.startswith(b"{") and path.suffix == ".json":
        return _open_index(path)
    raise CheckpointError(f"{path}: {_EXPECTED}, found a file that begins with {head!r}")


def files_of(path: str | Path) -> list[Path]:
    """The files that a checkpoint is read from."""
    path = Path(path)
    if path.is_dir():
        return [file for pattern in ("*.json", "*.safetensors") for file in sorted(path.glob(pattern))]
    return [path, *sorted(path.parent.glob("*.safetensors"))] if path.suffix == ".json" else [path]


def _open_folder(path: Path) -> Checkpoint:
    indices = sorted(path.glob("*.safetensors.index.json"))
    if len(indices) == 1:
        return _open_index(indices[0])
    shards = sorted(path.glob("*.safetensors"))
    if indices or not shards:
        found = f"{len(indices)} indices and {len(shards)} safetensors files"
        raise CheckpointError(f"{path}: expected a folder of safetensors files, or one index, found {found}")
    return _open_safetensors(shards)


def _open_index(path: Path) -> Checkpoint:
    try:
        shard_of = json.loads(path.read_bytes())["weight_map"]
        shards = {str(shard) for shard in shard_of.values()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: expected an index with a weight_map, found a damaged one") from error
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise CheckpointError(f"{path}: expected files of this folder, found {outside[0]!r}")
    found = _open_safetensors([path.parent / shard for shard in sorted(shards)])
    if missing := [name for name in shard_of if name.removeprefix(_PREFIX) not in found and name not in found]:
        raise CheckpointError(f"{path}: expected a tensor {missing[0]!r} in {shard_of[missing[0]]}, found none")
    return found


def _open_safetensors(paths: Sequence[Path]) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    files: dict[str, Path] = {}
    specs: dict[str, Tensor] = {}
    for path in paths:
        try:
            with path.open("rb"), safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 – no mapping
                    if name in files:
                        raise CheckpointError(f"{path}: expected new names, found {name!r} of {files[name]}")
                    part = file.get_slice(name)
                    kind, shape = part.get_dtype(), part.get_shape()
                    if kind not in TYPES:
                        expected = f"expected a type of {', '.join(TYPES)}"
                        raise CheckpointError(f"{path}: {name}: {expected}, found {kind}")
                    specs[name] = torch.empty(tuple(shape), dtype=TYPES[kind], device="meta")
                    files[name] = path
        except SafetensorError as error:
            raise CheckpointError(f"{path}: {_EXPECTED}, found a damaged one ({error})") from error
    if not specs:
        raise CheckpointError(f"{paths[0]}: expected named tensors, found none")
    return Checkpoint(files, specs)


def _read_pytorch(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch would go by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{path}: {_EXPECTED}, found {_finding(error)}") from error


def _finding(error: Exception) -> str:
    """The fault that torch's page of advice names, in a few words."""
    if refused := re.search(r"GLOBAL (\S+) was not an allowed global", str(error)):
        return f"a pickled {refused[1]}, which is not loaded; save the model's state_dict() instead"
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    first_line = next((line for line in text.splitlines() if line.strip()), "")
    return f"a damaged one ({type(error).__name__}: {textwrap.shorten(first_line, 120)})"


def _named_tensors(path: Path, found: Any) -> dict[str, Tensor]:
    inner = [found.get(key) for key in _WRAPPERS] if isinstance(found, Mapping) else []
    for candidate in (found, *inner):
        items = candidate.items() if isinstance(candidate, Mapping) else ()
        if items and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in items):
            return {name: tensor.detach() for name, tensor in items}
    contents = f"a {type(found).__name__}"
    if isinstance(found, Mapping):
        contents += f" of {', '.join(map(repr, list(found)[:5])) or 'nothing'}"
    raise CheckpointError(f"{path}: expected named tensors, also under {' or '.join(_WRAPPERS)}, found {contents}")
