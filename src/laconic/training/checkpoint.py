"""Checkpoints of nested state without pickle: a safetensors file whose metadata is the rest as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save as to_bytes
from torch import Tensor

from laconic.core.atomic import atomic
from laconic.errors import FormatError

KEY = "__tensor__"


def save_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write nested mappings, lists, tensors and plain values, atomically; TypeError for any other value."""
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_flatten(state, tensors))
    with atomic(path) as file:
        file.write(to_bytes(tensors, metadata={"state": plain}))


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_state` wrote; FormatError if the file is not such a checkpoint."""
    try:
        with safetensors.safe_open(Path(path), framework="pt") as file:
            plain = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _restore(plain, tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: expected a training checkpoint: {error}") from error


def _flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {KEY: name}
    if isinstance(value, Mapping):
        # Optimizers' state is keyed by integers: pairs keep the keys' types.
        return {"pairs": [[key, _flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_flatten(item, tensors) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"checkpoint: expected plain values and tensors, found {type(value).__name__}")


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    if isinstance(value, dict):
        if KEY in value:
            return tensors[value[KEY]]
        return {key: _restore(item, tensors) for key, item in value["pairs"]}
    return value
