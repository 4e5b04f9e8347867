"""A network's tensors to a file and back: `save` and `load`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar, overload

import torch
from torch import Tensor, nn

from laconic import codec
from laconic.errors import MismatchError, UnsupportedError
from laconic.file import container
from laconic.file.container import Entry, Reader
from laconic.quantization.grid import Grid
from laconic.surgery.plan import Plan
from laconic.surgery.shrink import cut_, refuse_distributed
from laconic.tensors import Selector, names_to_quantize, unwrap

DEFAULT = Grid()
M = TypeVar("M", bound=nn.Module)


def save(
    model: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    quantizer: Grid | None = DEFAULT,
    include: Iterable[Selector] | None = None,
    exclude: Iterable[Selector] = (),
    plan: Plan | None = None,
) -> int:
    """Write a model's state, or named tensors, to a `.lac` file, and return its length in bytes.

    The tensors that compress (`laconic.tensors`: by default the weights of linear, convolutional and
    embedding layers; of bare tensors, those of floats with two or more dimensions) and the biases beside
    them are quantised; all others are stored exactly. Tied tensors are stored once. The write is atomic.

    Args:
        model: a module, or tensors by name.
        path: the file to write.
        quantizer: how to quantise; None stores everything exactly.
        include: what compresses, instead of the default: names, ``re:`` patterns, module types.
        exclude: what does not compress after all.
        plan: how a dense model was cut to this one: stored as well, so that `load` can cut the dense model
            alike.

    Raises:
        NonFiniteError: a tensor to be quantised holds NaN or infinity; nothing is written.
        UnsupportedError: a tensor's type has no place in a file.
        MismatchError: a selector matches nothing, or the plan does not leave these tensors.
    """
    state = unwrap(model).state_dict() if isinstance(model, nn.Module) else dict(model)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UnsupportedError(f"{name}: expected a tensor, found {type(value).__name__}")
    quantized = names_to_quantize(model, include, exclude)
    grids = {} if quantizer is None else _grids(quantizer, {name: state[name] for name in quantized})
    tied = _tied(state)
    own = {name: tensor for name, tensor in state.items() if name not in tied}
    chunks = [codec.encode(name, tensor, grids.get(name)) for name, tensor in own.items()]
    return container.write(path, chunks, tied, plan)


def _grids(quantizer: Grid, tensors: Mapping[str, Tensor]) -> dict[str, Grid]:
    """Each tensor's grid: its share goes by its layer's size, so a bias has the error of its weight."""
    sizes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        sizes[_layer(name)] += tensor.numel()
    largest = max(sizes.values(), default=0)
    return {name: quantizer.share(sizes[_layer(name)], largest) for name, t in tensors.items() if t.numel()}


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _tied(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name → the earlier name that shows the same memory in the same way."""
    seen: dict[tuple[object, ...], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.numel() and tensor.layout == torch.strided:
            key = (tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride())
            first = seen.setdefault(key, name)
            if first != name:
                tied[name] = first
    return tied


@overload
def load(
    path: str | os.PathLike[str], *, names: Iterable[str] | None = None, max_bytes: int | None = None
) -> dict[str, Tensor]: ...
@overload
def load(path: str | os.PathLike[str], into: M) -> M: ...


def load(
    path: str | os.PathLike[str],
    into: nn.Module | None = None,
    names: Iterable[str] | None = None,
    max_bytes: int | None = None,
) -> nn.Module | dict[str, Tensor]:
    """Read a `.lac` file into a model of the same architecture, or as tensors by name.

    A file with a plan also fills the dense model that its tensors were cut from, and cuts it for that.

    Args:
        path: the file.
        into: the model to fill; its names and shapes must be the file's, or those that the file's plan cuts
            to them. It is untouched on failure.
        names: without a model: the tensors to read, by default all. Others are not decoded.
        max_bytes: without a model: the most bytes that the decoded tensors may take. By default
            64 MiB plus a thousand times the file's length, since a file on its own word may ask for more.

    Returns:
        `into`, or tensors by name.

    Raises:
        FormatError: the file is damaged or not a `.lac` file.
        MismatchError: names or shapes are not the model's.
        LimitError: decoding would take more than `max_bytes`.
        UnsupportedError: the file needs a newer version.
    """
    with Reader(path) as reader:
        if into is not None:
            _fill(reader, into)
            return into
        wanted = list(reader.entries if names is None else names)
        unknown = [name for name in wanted if name not in reader.entries]
        if unknown:
            raise MismatchError(f"{reader.path}: expected a tensor {unknown[0]!r}, found none")
        reader.check_limit(wanted, max_bytes)
        return _decode(reader, wanted)


def _fill(reader: Reader, model: nn.Module) -> None:
    inner, plan = unwrap(model), reader.plan
    if plan is None or _misfit(reader, inner.state_dict()) is None:
        plan = Plan()
    else:
        refuse_distributed(model)
    with cut_(inner, plan) as undo:
        if misfit := _misfit(reader, inner.state_dict()):
            raise MismatchError(misfit)
        inner.load_state_dict(_decode(reader, reader.entries))
        undo.pop_all()


def _misfit(reader: Reader, state: Mapping[str, Tensor]) -> str | None:
    """How the file's names and shapes differ from the model's, if they do."""
    missing = [name for name in state if name not in reader.entries]
    extra = [name for name in reader.entries if name not in state]
    if missing or extra:
        found = "; ".join(
            f"{len(names)} {what}, such as {names[0]!r}"
            for names, what in ((missing, "missing"), (extra, "unexpected"))
            if names
        )
        return f"{reader.path}: expected the model's tensors, found {found}"
    for name, tensor in state.items():
        shape = reader.entries[name].form.shape
        if shape != tuple(tensor.shape):
            return f"{name}: the model's is {tuple(tensor.shape)}, the file's {shape}"
    return None


def _decode(reader: Reader, names: Iterable[str]) -> dict[str, Tensor]:
    decoded: dict[str, Tensor] = {}  # by the name that holds the chunk
    return {name: _decode_one(reader, reader.entries[name], decoded) for name in names}


def _decode_one(reader: Reader, entry: Entry, decoded: dict[str, Tensor]) -> Tensor:
    holder = entry.tied_to or entry.form.name
    if holder not in decoded:
        original = reader.entries[holder]
        decoded[holder] = codec.decode(original.form, reader.chunk(original))
    return decoded[holder]
