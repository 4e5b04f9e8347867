"""A network's tensors to a file and back: `save` and `load`.

A file of differences names its parent, the state that they are from, by a digest.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar, overload

import torch
from torch import Tensor, nn

from laconic.codec.spec import Method, TensorSpec
from laconic.codec.tensor import decode_tensor, encode_tensor
from laconic.coding.bitio import Pieces
from laconic.errors import MismatchError, UnsupportedError
from laconic.file import container, writer
from laconic.file.container import MAGIC, Entry, Reader, crc32
from laconic.file.workers import FileOptions
from laconic.formats.checkpoints import Checkpoint, open_checkpoint
from laconic.model.modules import state_digest, unwrap
from laconic.model.selectors import Selector, names_to_quantize
from laconic.quantization.grid import Grid, Quantizer, Rounder
from laconic.surgery.cut import cut_, refuse_distributed
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

    The tensors that compress (`laconic.model.compressible`: by default the weights of linear, convolutional and
    embedding layers; of bare tensors, those of floats with two or more dimensions) and the biases beside them are
    quantised; all others are stored exactly. Tied tensors are stored once. The write is atomic.

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
        UnsupportedError: a file cannot hold a tensor's type, or the parent is a difference itself.
        MismatchError: a selector matches nothing, the plan does not leave these tensors, or another file of this name
            was begun.
    """
    state = unwrap(model).state_dict() if isinstance(model, nn.Module) else model
    specs = state.specs if isinstance(state, Checkpoint) else state
    for name, value in specs.items():
        if not isinstance(value, Tensor):
            raise UnsupportedError(f"{name}: expected a tensor, found {type(value).__name__}")
    quantized = names_to_quantize(model if isinstance(model, nn.Module) else specs, include, exclude)
    rounders: Mapping[str, Rounder] = quantizer.per_tensor({n: specs[n] for n in quantized}) if quantizer else {}
    tied = {} if isinstance(state, Checkpoint) else _tied(state)
    own = {name: spec.numel() * spec.element_size() for name, spec in specs.items() if name not in tied}
    parent = None if base is None else open_parent(base)
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


def _tied(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name → the earlier name that shows the same memory in the same way."""
    seen: dict[tuple[object, ...], str] = {}
    first = {
        name: seen.setdefault((tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride()), name)
        for name, tensor in state.items()
        if tensor.numel() and tensor.layout == torch.strided
    }
    return {name: earlier for name, earlier in first.items() if earlier != name}


@overload
def load(
    path: str | os.PathLike[str],
    *,
    names: Iterable[str] | None = None,
    max_bytes: int | None = None,
    base: State | None = None,
    work: FileOptions = ANY_WORK,
) -> dict[str, Tensor]: ...
@overload
def load(path: str | os.PathLike[str], into: M, *, base: State | None = None, work: FileOptions = ANY_WORK) -> M: ...


def load(
    path: str | os.PathLike[str],
    into: nn.Module | None = None,
    names: Iterable[str] | None = None,
    max_bytes: int | None = None,
    *,
    base: State | None = None,
    work: FileOptions = ANY_WORK,
) -> nn.Module | dict[str, Tensor]:
    """Read a `.lac` file into a model of the same architecture, or as tensors by name.

    A file with a plan also fills the dense model that its tensors were cut from, and cuts it for that.

    Args:
        path: the file.
        into: the model to fill; its names and shapes must be the file's, or those that the file's plan cuts to them. It
            is untouched on failure.
        names: without a model: the tensors to read, by default all. Others are not decoded.
        max_bytes: without a model: the most bytes that the decoded tensors may take, by default 64 MiB plus a thousand
            times the file's length, since a malicious file may ask for more.
        base: the parent, for a file of differences: in the form given to `save`, or in any other.
        work: threads and progress.

    Returns:
        `into`, or tensors by name.

    Raises:
        FormatError: the file is damaged or not a `.lac` file.
        MismatchError: names or shapes are not the model's, or the parent is missing or another.
        LimitError: decoding would take more than `max_bytes`.
        UnsupportedError: the file needs a newer version.
    """
    with Reader(path) as reader:
        if into is not None:
            _fill(reader, into, base, work)
            return into
        wanted = list(reader.entries if names is None else names)
        if unknown := [name for name in wanted if name not in reader.entries]:
            raise MismatchError(f"{reader.path}: expected a tensor {unknown[0]!r}, found none")
        reader.check_limit(wanted, max_bytes)
        return _decode(reader, wanted, base, work)


def _fill(reader: Reader, model: nn.Module, base: State | None, work: FileOptions) -> None:
    inner, plan = unwrap(model), reader.plan
    if plan is None or _misfit(reader, inner.state_dict()) is None:
        plan = Plan()
    else:
        refuse_distributed(model)
    with cut_(inner, plan) as undo:
        if misfit := _misfit(reader, inner.state_dict()):
            raise MismatchError(misfit)
        inner.load_state_dict(_decode(reader, reader.entries, base, work))
        undo.pop_all()


def _misfit(reader: Reader, state: Mapping[str, Tensor]) -> str | None:
    """How the file's names and shapes differ from the model's, if they do."""
    missing = [name for name in state if name not in reader.entries]
    extra = [name for name in reader.entries if name not in state]
    kinds = [(names, what) for names, what in ((missing, "missing"), (extra, "unexpected")) if names]
    if kinds:
        found = "; ".join(f"{len(names)} {what}, such as {names[0]!r}" for names, what in kinds)
        return f"{reader.path}: expected the model's tensors, found {found}"
    for name, tensor in state.items():
        shape = reader.entries[name].spec.shape
        if shape != tuple(tensor.shape):
            return f"{name}: the model's is {tuple(tensor.shape)}, the file's {shape}"
    return None


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
    if not path.is_dir():
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
