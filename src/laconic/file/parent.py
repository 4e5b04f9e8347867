"""A parent: the state that a file's differences are from, and the digest by which the file names it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from laconic.codec.spec import Method
from laconic.codec.tensor import decode_tensor
from laconic.errors import MismatchError, UnsupportedError
from laconic.file.container import MAGIC, Entry, Reader
from laconic.formats.checkpoints import open_checkpoint
from laconic.model.modules import state_digest, unwrap

State: TypeAlias = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
SHORT = 12  # hex digits of a digest in a message


def open_parent(base: State) -> Mapping[str, Tensor]:
    """A parent's tensors, which files are read for one by one."""
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


def checked_parent(reader: Reader, entries: Iterable[Entry], base: State | None) -> Mapping[str, Tensor] | None:
    """The parent that `entries` need, if any; MismatchError if it is missing, or not the one that the file names."""
    differs = next((entry.spec.name for entry in entries if entry.spec.method is Method.DELTA), None)
    if differs is None or reader.parent is None:
        return None
    wanted = f"{reader.path}: {differs}: expected the parent {reader.parent[:SHORT]}…"
    if base is None:
        raise MismatchError(f"{wanted}, found none: name it as base")
    parent = open_parent(base)
    if (digest := state_digest(parent)) != reader.parent:
        raise MismatchError(f"{wanted}, found {digest[:SHORT]}…")
    return parent


class _File(Mapping[str, Tensor]):
    """A `.lac` file's tensors, each decoded on access."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._reader = Reader(path)
        weakref.finalize(self, self._reader.close)
        if self._reader.parent:
            found = f"a difference from {self._reader.parent[:SHORT]}…: decompress it first"
            raise UnsupportedError(f"{path}: expected a parent that stands alone, found {found}")
        self._reader.check_limit(self._reader.entries)

    def __getitem__(self, name: str) -> Tensor:
        entry = self._reader.entries[name]
        holder = self._reader.entries[entry.tied_to] if entry.tied_to else entry
        return decode_tensor(holder.spec, self._reader.chunk(holder))

    def __contains__(self, name: object) -> bool:
        return name in self._reader.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader.entries)

    def __len__(self) -> int:
        return len(self._reader.entries)
