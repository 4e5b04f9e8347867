"""A network's tensors to a file and back: `save` and `load`.

A file of differences names its parent, the state that they are from, by a digest.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar, overload

import torch
from torch import Tensor, nn

from laconic.codec.spec import Method, TensorSpec
from laconic.codec.tensor import decode_tensor, encode_tensor
from laconic.coding.bitio import Pieces
from laconic.core.atomic import check_output
from laconic.errors import MismatchError, UnsupportedError, check_type
from laconic.file import container, writer
from laconic.file.container import MAGIC, Entry, Reader, crc32
from laconic.file.filling import fill, tied_names
from laconic.file.sections import check_name
from laconic.file.workers import FileOptions
from laconic.formats.checkpoints import Checkpoint, open_checkpoint
from laconic.model.modules import state_digest, unwrap
from laconic.model.selectors import Selector, names_to_quantize
from laconic.quantization.grid import Grid, Quantizer, Rounder
from laconic.surgery.plan import Plan

State: TypeAlias = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
DEFAULT = Grid()
ANY_WORK = FileOptions()
SHORT = 12  # hex digits of a digest in a message
M = TypeVar("M", bound=nn.Module)


def save(  # noqa: PLR0913 – a public call
    model: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    quantizer: Quantizer | None = DEFAULT,
    include: Iterable[Selector] | None = None,
    exclude: Iterable[Selector] = (),
    plan: Plan | None = None,
    *,
    base: State | None = None,
    work: FileOptions = ANY_WORK,
) -> int:
    """Write a model's state, or named tensors, to a `.lac` file, and return its length in bytes.

    The tensors that compress (`laconic.model.compressible`: by default all float parameters of two or more dimensions,
    norms' excepted; of bare tensors, those whose names are no buffers') and the biases beside them are quantised; all
    others are stored exactly. Tied tensors are stored once. The write is atomic.

    Args:
        model: a module, or tensors by name; those of a `Checkpoint` are read one by one.
        path: the file to write.
        quantizer: how to quantise; None codes everything exactly.
        include: selectors of what compresses, instead of the default: names, ``re:`` patterns, module types.
        exclude: selectors of what does not compress after all.
        plan: how a dense model was cut to this one; it is stored, so that `load` can cut the dense model alike.
        base: a parent, as a model, tensors by name, or the path of a checkpoint or a `.lac` file. Tensors are coded by
            their difference from its tensors of the same name, shape and type. A grid's error stays relative to the
            tensor, not to the difference. `load` then needs the same parent.
        work: threads, progress, and whether an interrupted write resumes.

    Raises:
        NonFiniteError: a tensor to be quantised holds NaN or infinity; nothing is written.
        UnsupportedError: a file cannot hold a tensor's name or type, a tensor is on the meta device, or the parent is a
            difference itself.
        MismatchError: a selector matches nothing, the plan does not leave these tensors, the parent has none of them,
            or another file of this name was begun.
        OutputError: `path` is a device, a pipe, a link or a folder, or one of the files that are read.
    """
    if quantizer is not None:
        check_type("quantizer", quantizer, Quantizer, "Grid(0.1)" if isinstance(quantizer, float) else "")
    state = unwrap(model).state_dict() if isinstance(model, nn.Module) else model
    specs = state.specs if isinstance(state, Checkpoint) else state
    _check_storable(specs, read_on_access=isinstance(state, Checkpoint))
    quantized = names_to_quantize(model if isinstance(model, nn.Module) else specs, include, exclude)
    rounders: Mapping[str, Rounder] = quantizer.per_tensor({n: specs[n] for n in quantized}) if quantizer else {}
    tied = tied_names(specs)
    own = {name: spec.numel() * spec.element_size() for name, spec in specs.items() if name not in tied}
    parent = None if base is None else open_parent(base)
    check_output(path, [*files_of(state), *files_of(parent)])
    if parent is not None:
        _check_shared(specs, parent, "base" if isinstance(base, (nn.Module, Mapping)) else f"base {base}")
    digest = None if parent is None else state_digest(parent)
    key = None
    if work.resume is not None:
        options = (work.resume, quantizer, list(include or ()), list(exclude), digest)
        key = hashlib.sha256(repr((container.VERSION, options)).encode()).digest()

    work = work.for_bytes(sum(own.values()))
    with writer.drafted(path, key) as draft, work.blocks() as run:

        def encode(name: str) -> tuple[TensorSpec, Pieces, int]:
            beside = None if parent is None else parent.get(name)
            spec, pieces = encode_tensor(name, state[name], rounders.get(name), beside, run)
            return spec, pieces, crc32(pieces, run)

        for entry in draft.stored:
            work.done(own.pop(entry.spec.name))
        for coded in work.in_order(encode, own.items(), max(own.values(), default=0)):
            draft.append(*coded)
            del coded  # before the next is waited for
        return draft.finish(tied, plan, digest)


def _check_storable(specs: Mapping[str, Tensor], read_on_access: bool) -> None:
    for name, value in specs.items():
        check_name(name)
        if not isinstance(value, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UnsupportedError(f"{name}: expected a tensor, found {type(value).__name__}")
        if value.is_nested:
            raise UnsupportedError(f"{name}: expected a tensor with a shape, found a nested one")
        if value.is_meta and not read_on_access:
            raise UnsupportedError(f"{name}: expected a tensor with values, found one on the meta device")


def _check_shared(specs: Mapping[str, Tensor], parent: Mapping[str, Tensor], place: str) -> None:
    """Raise MismatchError if no tensor of `specs` can be coded by its difference from the parent."""
    theirs = parent.specs if isinstance(parent, (Checkpoint, _File)) else parent

    def kind(spec: Tensor | TensorSpec) -> tuple[torch.dtype, tuple[int, ...]]:
        return spec.dtype, tuple(spec.shape)

    common = [name for name in specs if name in theirs]
    if any(kind(specs[name]) == kind(theirs[name]) for name in common) or not specs:
        return
    if common:
        (dtype, shape), (other, dense) = kind(specs[common[0]]), kind(theirs[common[0]])
        found = f"{common[0]} of {other} {dense}, where {dtype} {shape} is to be saved"
    else:
        ours = next(iter(specs))
        alike = (name for name in theirs if name.endswith(f".{ours}") or ours.endswith(f".{name}"))
        found = f"names such as {next(alike, next(iter(theirs), None))!r}, where {ours!r} is to be saved"
    raise MismatchError(f"{place}: expected a tensor of the same name, shape and type, found {found}")


def files_of(state: object) -> Sequence[Path]:
    """The files that a state is read from."""
    return state.files if isinstance(state, (Checkpoint, _File)) else ()


@overload
def load(
    path: str | os.PathLike[str],
    *,
    names: Iterable[str] | None = None,
    limit: int | None = None,
    base: State | None = None,
    work: FileOptions = ANY_WORK,
) -> dict[str, Tensor]: ...
@overload
def load(path: str | os.PathLike[str], into: M, *, base: State | None = None, work: FileOptions = ANY_WORK) -> M: ...


def load(
    path: str | os.PathLike[str],
    into: nn.Module | None = None,
    names: Iterable[str] | None = None,
    limit: int | None = None,
    *,
    base: State | None = None,
    work: FileOptions = ANY_WORK,
) -> nn.Module | dict[str, Tensor]:
    """Read a `.lac` file into a model of the same architecture, or as tensors by name.

    A file with a plan also fills the dense model that its tensors were cut from, and cuts it for that.

    Args:
        path: the file.
        into: the model to fill; its names and shapes must be the file's, or those that the file's plan cuts to them.
            Of tensors that the model ties, the file needs one. Names of wrappers (``module.``, ``_orig_mod.``) may
            differ. Tensors on the device ``meta`` come to the CPU. What is no tensor (``_extra_state``) stays as it
            is. The model is untouched on failure.
        names: without a model: the tensors to read, by default all. Others are not decoded.
        limit: without a model: the most bytes that the decoded tensors may take, by default 64 MiB plus a thousand
            times the file's length, since a malicious file may ask for more.
        base: the parent, for a file of differences: in the form given to `save`, or in any other.
        work: threads and progress.

    Returns:
        `into`, or tensors by name.

    Raises:
        FormatError: the file is damaged or not a `.lac` file.
        MismatchError: names or shapes are not the model's, the model has a buffer on the device ``meta`` that no file
            stores, or the parent is missing or another.
        LimitError: decoding would take more than `limit`.
        UnsupportedError: the file needs a newer version.
    """
    if into is not None:
        check_type("into", into, nn.Module)
    with Reader(path) as reader:
        if into is not None:
            fill(reader, into, lambda names: _decode(reader, names, base, work))
            return into
        wanted = list(reader.entries if names is None else names)
        if unknown := [name for name in wanted if name not in reader.entries]:
            raise MismatchError(f"{reader.path}: expected a tensor {unknown[0]!r}, found none")
        reader.check_limit(wanted, limit)
        return _decode(reader, wanted, base, work)


def _decode(reader: Reader, names: Iterable[str], base: State | None, work: FileOptions) -> dict[str, Tensor]:
    holders = {name: reader.holder(name).spec.name for name in names}
    untied = dict.fromkeys(holders.values())
    decoded = dict(zip(untied, decode_each(reader, untied, base, work), strict=True))
    return {name: decoded[holder] for name, holder in holders.items()}


def decode_each(
    reader: Reader, names: Iterable[str], base: State | None, work: FileOptions = ANY_WORK
) -> Generator[Tensor]:
    """The tensors of these names, in order, in memory bounded by the largest one."""
    entries = [reader.holder(name) for name in names]
    parent = _checked_parent(reader, entries, base)
    sized = [(entry, entry.spec.n_bytes) for entry in entries]
    work = work.for_bytes(sum(n_bytes for _, n_bytes in sized))
    with work.blocks() as run:

        def decode(entry: Entry) -> Tensor:
            beside = parent.get(entry.spec.name) if parent is not None and entry.spec.method is Method.DELTA else None
            return decode_tensor(entry.spec, reader.chunk(entry, run), beside, run)

        yield from work.in_order(decode, sized, max((n for _, n in sized), default=0))


def open_parent(base: State) -> Mapping[str, Tensor]:
    """A parent's tensors, which files are read for one by one."""
    if isinstance(base, nn.Module):
        return unwrap(base).state_dict()
    if isinstance(base, Mapping):
        return base
    path = Path(base)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return _File(path)
    return open_checkpoint(path)


def _checked_parent(reader: Reader, entries: Iterable[Entry], base: State | None) -> Mapping[str, Tensor] | None:
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
        self.files = (Path(path),)
        self.specs = {name: entry.spec for name, entry in self._reader.entries.items()}
        weakref.finalize(self, self._reader.close)
        if self._reader.parent:
            found = f"a difference from {self._reader.parent[:SHORT]}…: decompress it first"
            raise UnsupportedError(f"{path}: expected a parent that stands alone, found {found}")
        self._reader.check_limit(self._reader.entries)

    def __getitem__(self, name: str) -> Tensor:
        holder = self._reader.holder(name)
        return decode_tensor(holder.spec, self._reader.chunk(holder))

    def __contains__(self, name: object) -> bool:
        return name in self._reader.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader.entries)

    def __len__(self) -> int:
        return len(self._reader.entries)
