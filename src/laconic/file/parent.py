"""A parent: the state that a file's differences are from, and the digest by which the file names it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from laconic.codec.spec import Method
from laconic.codec.tensor import decode_tensor
from laconic.errors import MismatchError, UnsupportedError
from laconic.file.container import MAGIC, Entry, Reader
from laconic.formats.checkpoints import open_checkpoint
from laconic.model.modules import raw_bytes, unwrap

State: TypeAlias = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
SHORT = 12  # hex digits of a digest in a message


class Parent:
    """A parent's tensors, read one by one from a model, a mapping, a checkpoint or a `.lac` file."""

    def __init__(self, base: State) -> None:
        self._tensors = _opened(base)

    @cached_property
    def digest(self) -> str:
        """The SHA-256, in hex, of names, types, shapes and values, in the order of names."""
        return state_digest(self._tensors)

    def get(self, name: str) -> Tensor | None:
        """A tensor of the parent, if it has one of this name."""
        return self._tensors[name] if name in self._tensors else None  # noqa: SIM401 – `get` would read twice


def state_digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256, in hex, of named tensors; order and ties do not matter. `docs/format.md`, "Parent"."""
    whole = hashlib.sha256()
    for name in sorted(tensors, key=str.encode):
        tensor = tensors[name].detach().cpu()
        values = hashlib.sha256(raw_bytes(tensor))
        kind = str(tensor.dtype).removeprefix("torch.")
        shape = "x".join(map(str, tensor.shape))
        whole.update(f"{len(name.encode())} {name} {kind} {shape} {values.hexdigest()}\n".encode())
    return whole.hexdigest()


def checked_parent(reader: Reader, entries: Iterable[Entry], base: State | None) -> Parent | None:
    """The parent that `entries` need, if they need one.

    Raises:
        MismatchError: it is missing, or not the one that the file names.
    """
    differ = [entry.spec.name for entry in entries if entry.spec.method is Method.DELTA]
    if not differ or reader.parent is None:
        return None
    wanted = f"{reader.path}: {differ[0]}: expected the parent {reader.parent[:SHORT]}…"
    if base is None:
        raise MismatchError(f"{wanted}, found none: name it as base")
    parent = Parent(base)
    if parent.digest != reader.parent:
        raise MismatchError(f"{wanted}, found {parent.digest[:SHORT]}…")
    return parent


class _File(Mapping[str, Tensor]):
    """A `.lac` file's tensors, each decoded when it is asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._reader = Reader(path)
        if self._reader.parent:
            raise UnsupportedError(
                f"{path}: expected a parent that stands alone, found a difference from "
                f"{self._reader.parent[:SHORT]}…: decompress it first"
            )
        self._reader.check_limit(self._reader.entries)

    def __del__(self) -> None:
        if hasattr(self, "_reader"):
            self._reader.close()

    def __getitem__(self, name: str) -> Tensor:
        entry = self._reader.entries[name]
        holder = self._reader.entries[entry.tied_to] if entry.tied_to else entry
        return decode_tensor(holder.spec, self._reader.chunk(holder))

    def __contains__(self, name: object) -> bool:
        return name in self._reader.entries

    def __iter__(self):
        return iter(self._reader.entries)

    def __len__(self) -> int:
        return len(self._reader.entries)


def _opened(base: State) -> Mapping[str, Tensor]:
    if isinstance(base, nn.Module):
        return unwrap(base).state_dict()
    if isinstance(base, Mapping):
        return base
    path = Path(base)
    if not path.is_dir():
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return _File(path)
    return open_checkpoint(path)
