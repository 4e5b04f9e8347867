"""Reading the weights of a trained network, and nothing else, from a file or a folder.

Safetensors files, PyTorch's files, and indices of shards of either are recognised by their structure, not their name.
What a file holds beside the tensors that are read is listed, never lost without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from laconic.errors import CheckpointError
from laconic.formats.kinds import EXPECTED, Kind, kind_of
from laconic.formats.parts import choose, plain_names
from laconic.formats.pytorch import load_pytorch

# By safetensors' names.
TYPES = (
    {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    | {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "U8": torch.uint8, "BOOL": torch.bool}
    | {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8}
)
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}  # how files of weights end
# Folders that are not read, by a file in them.
_FOLDERS = (
    ("*.distcp", "of torch.distributed.checkpoint", "torch.distributed.checkpoint.format_utils dcp_to_torch"),
    ("**/zero_pp_rank_*", "of DeepSpeed's", "deepspeed.utils.zero_to_fp32"),
    ("saved_model.pb", "of TensorFlow's", ""),
)


class Checkpoint(Mapping[str, Tensor]):
    """Named tensors; those in safetensors files are read on access and not kept.

    Attributes:
        specs: names to tensors of their shapes and types; what is read on access is on the device ``meta``, without
            values.
        left_out: what the files hold beside these tensors, by its keys, and how many tensors are in it.
        files: the files that were read.
    """

    def __init__(
        self,
        specs: Mapping[str, Tensor],
        places: Mapping[str, Path],
        left_out: Mapping[str, int] = MappingProxyType({}),
        files: Iterable[Path] = (),
    ) -> None:
        self._stored = plain_names(specs)
        self._places = places
        self.specs = {name: specs[stored] for name, stored in self._stored.items()}
        taken = set(self._stored.values())
        self.left_out = {name: 1 for name in specs if name not in taken} | dict(left_out)
        self.files = tuple(files)

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import SafetensorError, safe_open

        stored = self._stored[name]
        if stored not in self._places:
            return self.specs[name]
        path = self._places[stored]
        try:
            # Opened anew, so that the pages read so far are given back.
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(stored)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: {name}: expected the tensor that was there, found {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def read_checkpoint(path: str | Path, *, key: str | None = None) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, on the CPU; details and errors as for `open_checkpoint`."""
    return dict(open_checkpoint(path, key=key))


def open_checkpoint(path: str | Path, *, key: str | None = None) -> Checkpoint:
    """The named tensors of a safetensors or PyTorch file, or of a folder or an index of such files, on the CPU.

    Those of safetensors are read on access. In a PyTorch file the part with named tensors is found, at the top or under
    keys such as ``state_dict``; among several, `key` chooses. What is beside it is listed in the result's ``left_out``.
    Names that wrappers put before the module's own, such as ``module.`` and ``_orig_mod.``, are dropped.

    Args:
        path: the file or folder.
        key: which part of a PyTorch file to read: a key, or several joined by dots; ``.`` is the top.

    Raises:
        CheckpointError: the file is of another kind, which is named, is damaged, holds objects other than tensors and
            plain containers, has no named tensors, or has several parts and there is no key.
        OSError: a file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, key)
    kind = kind_of(path)
    if kind is Kind.PYTORCH:
        return _assembled([path], key)
    if key is not None:
        raise CheckpointError(f"{path}: expected a PyTorch file, whose part {key!r} to read, found one without parts")
    return _open_index(path) if kind is Kind.INDEX else _assembled([path])


def _open_folder(path: Path, key: str | None) -> Checkpoint:
    def found(pattern: str) -> list[Path]:
        return sorted(path.glob(pattern))

    weights = [file for file in found("*") if file.suffix in _WEIGHTS]
    shards = found("*.safetensors")
    pytorch = found("pytorch_model.bin") or [file for file in weights if file not in shards]
    for files, read in (
        (found("*.safetensors.index.json"), _open_index),
        (shards, None),
        (found("*.bin.index.json"), _open_index),
        (pytorch, open_checkpoint),
    ):
        if len(files) > 1 and read:
            names = ", ".join(file.name for file in files)
            raise CheckpointError(f"{path}: expected one index or file to read, found {len(files)}: {names}; name one")
        if files:
            break
    else:
        raise CheckpointError(f"{path}: expected a folder of safetensors or PyTorch files, found {_folder(path)}")
    if key is not None and read is not open_checkpoint:
        raise CheckpointError(f"{path}: expected a PyTorch file, whose part {key!r} to read, found {files[0].name}")
    opened = _assembled(files) if read is None else read(files[0], **({"key": key} if key else {}))
    opened.left_out |= {file.name: 0 for file in weights if file not in opened.files}
    return opened


def _folder(path: Path) -> str:
    for pattern, whose, tool in _FOLDERS:
        if next(path.glob(pattern), None):
            return f"one {whose}" + (f"; convert it by python -m {tool}" if tool else "")
    return "none of either"


def _open_index(path: Path) -> Checkpoint:
    try:
        shard_of = json.loads(path.read_bytes())["weight_map"]
        shards = {str(shard) for shard in shard_of.values()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: expected an index with a weight_map, found a damaged one") from error
    if not shards:
        raise CheckpointError(f"{path}: expected named tensors, found none")
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise CheckpointError(f"{path}: expected files of this folder, found {outside[0]!r}")

    def check(specs: Mapping[str, Tensor]) -> None:
        if missing := [name for name in shard_of if name not in specs]:
            raise CheckpointError(f"{path}: expected a tensor {missing[0]!r} in {shard_of[missing[0]]}, found none")

    opened = _assembled([path.parent / shard for shard in sorted(shards)], check=check)
    opened.files = (path, *opened.files)
    return opened


def _assembled(
    paths: list[Path], key: str | None = None, check: Callable[[Mapping[str, Tensor]], Any] = lambda specs: None
) -> Checkpoint:
    """One checkpoint of all files; `check` is called with what they hold."""
    specs: dict[str, Tensor] = {}
    holders: dict[str, Path] = {}
    places: dict[str, Path] = {}
    left_out: dict[str, int] = {}
    for path in paths:
        if kind_of(path) is Kind.PYTORCH:
            found = load_pytorch(path)
            try:
                tensors, others = choose(found, key)
            except CheckpointError as error:
                raise CheckpointError(f"{path}: {error}") from error
            left_out |= others
        else:
            tensors = _safetensors(path)
            places |= dict.fromkeys(tensors, path)
        for name, spec in tensors.items():
            if name in specs:
                raise CheckpointError(f"{path}: expected new names, found {name!r} of {holders[name]}")
            specs[name], holders[name] = spec, path
    if not specs:
        raise CheckpointError(f"{paths[0]}: expected named tensors, found none")
    check(specs)
    return Checkpoint(specs, places, left_out, paths)


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Names to tensors without values."""
    from safetensors import SafetensorError, safe_open

    specs: dict[str, Tensor] = {}
    try:
        with path.open("rb"), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 – no mapping
                part = file.get_slice(name)
                kind, shape = part.get_dtype(), part.get_shape()
                if kind not in TYPES:
                    expected = f"expected a type of {', '.join(TYPES)}"
                    raise CheckpointError(f"{path}: {name}: {expected}, found {kind}")
                specs[name] = torch.empty(tuple(shape), dtype=TYPES[kind], device="meta")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: {EXPECTED}, found a damaged one ({error})") from error
    return specs
