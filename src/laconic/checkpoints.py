"""Reading the weights of a trained network, and nothing else, from a file.

Both safetensors files and PyTorch's (zip, or the older bare pickle) are told by their content, not
their name. PyTorch's are read with ``weights_only=True``, which refuses every pickled object that
is not a tensor or a plain container, so reading runs no code from the file.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_EXPECTED = "expected a safetensors file or a PyTorch checkpoint"
_WRAPPERS = ("state_dict", "model")  # where training scripts keep the weights beside other things
_PREFIX = "module."  # what DataParallel puts before every name


class CheckpointError(ValueError):
    """A file is no checkpoint, or not one of the model at hand."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the named tensors of a checkpoint, on the CPU.

    They are looked for at the top level, then under ``state_dict`` and ``model``; a ``module.``
    that begins every name is dropped.

    Raises:
        CheckpointError: the file is neither kind, is damaged, holds objects other than tensors and
            plain containers, or has no named tensors.
        OSError: the file cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip, or a pickle of protocol 2 and later
        found = _read_pytorch(path)
    elif head[8:] == b"{":  # JSON, after its length in 8 bytes
        found = _read_safetensors(path)
    else:
        raise CheckpointError(f"{path}: {_EXPECTED}, found a file that begins with {head!r}")
    tensors = _named_tensors(path, found)
    if all(name.startswith(_PREFIX) for name in tensors):
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: {_EXPECTED}, found a damaged one ({error})") from error


def _read_pytorch(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch would go by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{path}: {_EXPECTED}, found {_finding(error)}") from error


def _finding(error: Exception) -> str:
    """What torch's page of advice says is wrong with the file, in a few words."""
    refused = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
    if refused:
        return f"a pickled {refused[1]}, which is not loaded; save the model's state_dict() instead"
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    first_line = next((line for line in text.splitlines() if line.strip()), "")
    summary = textwrap.shorten(first_line, 120)
    return f"a damaged one ({type(error).__name__}: {summary})"


def _named_tensors(path: Path, found: Any) -> dict[str, Tensor]:
    inner = [found.get(key) for key in _WRAPPERS] if isinstance(found, Mapping) else []
    for candidate in (found, *inner):
        if isinstance(candidate, Mapping) and candidate and all(map(_is_named, candidate.items())):
            return {name: tensor.detach() for name, tensor in candidate.items()}
    contents = f"a {type(found).__name__}"
    if isinstance(found, Mapping):
        contents += f" of {', '.join(map(repr, list(found)[:5])) or 'nothing'}"
    raise CheckpointError(
        f"{path}: expected named tensors, also under {' or '.join(_WRAPPERS)}, found {contents}"
    )


def _is_named(item: tuple[Any, Any]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor)
