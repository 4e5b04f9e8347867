"""Filling a model from a file, whose names and tensors may differ from the model's in what does not matter.

Of tensors that the model ties the file may have one, names of wrappers may differ, a plan may cut the model first, and
tensors on the meta device get memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from laconic.errors import MismatchError
from laconic.file.container import Reader
from laconic.formats.parts import plain_names
from laconic.model.modules import unwrap
from laconic.surgery.cut import cut_, refuse_distributed
from laconic.surgery.plan import Plan


def tied_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name → the earlier name that shows the same memory in the same way, or on the meta device is the same."""
    seen: dict[tuple[object, ...], str] = {}
    first = {
        name: seen.setdefault(
            (id(tensor),)
            if tensor.is_meta
            else (tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride()),
            name,
        )
        for name, tensor in state.items()
        if tensor.numel() and tensor.layout == torch.strided
    }
    return {name: earlier for name, earlier in first.items() if earlier != name}


def fill(reader: Reader, model: nn.Module, decode: Callable[[Iterable[str]], Mapping[str, Tensor]]) -> None:
    """Fill the model with what `decode` makes of the file's tensors of given names; untouched on failure.

    Raises:
        MismatchError: names or shapes are not the model's, or a tensor on the meta device is not in its state.
    """
    inner, plan = unwrap(model), reader.plan
    _refuse_unstored(inner)
    if plan is None or _misfit(reader, _tensors(inner)) is None:
        plan = Plan()
    else:
        refuse_distributed(model)
    with cut_(inner, plan) as undo:
        state = _tensors(inner)
        if misfit := _misfit(reader, state):
            raise MismatchError(misfit)
        entry_of = _entries_for(reader, state)
        decoded = decode(dict.fromkeys(entry_of.values()))
        _bring_from_meta(inner, state)
        inner.load_state_dict(inner.state_dict() | {name: decoded[entry] for name, entry in entry_of.items()})
        undo.pop_all()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state's own tensors, of which tied ones are the same."""
    return {name: found for name, found in model.state_dict(keep_vars=True).items() if isinstance(found, Tensor)}


def _refuse_unstored(model: nn.Module) -> None:
    """Raise MismatchError for a tensor on the meta device that is not in the state, so that nothing could fill it."""
    stored = {id(tensor) for tensor in _tensors(model).values()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta and id(tensor) not in stored:
            found = "one on the meta device that no file stores; accelerate.init_empty_weights() leaves buffers real"
            raise MismatchError(f"{name}: expected a tensor with values, found {found}")


def _bring_from_meta(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give tensors on the meta device memory, without values; tied ones stay tied, since both get the same object."""
    fresh: dict[int, Tensor] = {}
    for tensor in state.values():
        if tensor.is_meta and id(tensor) not in fresh:
            empty = torch.empty_like(tensor, device="cpu", requires_grad=False)
            is_parameter = isinstance(tensor, nn.Parameter)
            fresh[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    if fresh:
        filled = {name: fresh[id(tensor)] for name, tensor in state.items() if id(tensor) in fresh}
        model.load_state_dict(filled, strict=False, assign=True)


def _entries_for(reader: Reader, state: Mapping[str, Tensor]) -> dict[str, str]:
    """The model's names to the file's: the same, or without those of wrappers, or of a tensor tied to it."""
    tied, found = tied_names(state), {name: name for name in state if name in reader.entries}
    if len(found) < len(state):
        entries = plain_names(reader.entries)
        for plain, name in plain_names(state).items():
            if name not in found and plain in entries:
                found[name] = entries[plain]
    of_first: dict[str, str] = {}
    for name, entry in found.items():
        of_first.setdefault(tied.get(name, name), entry)
    first = {name: tied.get(name, name) for name in state if name not in found}
    return found | {name: of_first[other] for name, other in first.items() if other in of_first}


def _misfit(reader: Reader, state: Mapping[str, Tensor]) -> str | None:
    """How the file's names and shapes differ from the model's, if they do."""
    entry_of = _entries_for(reader, state)
    used = set(entry_of.values())
    missing = [name for name in state if name not in entry_of]
    extra = [name for name in reader.entries if name not in used]
    kinds = [(names, what) for names, what in ((missing, "missing"), (extra, "unexpected")) if names]
    if kinds:
        found = "; ".join(f"{len(names)} {what}, such as {names[0]!r}" for names, what in kinds)
        return f"{reader.path}: expected the model's tensors, found {found}"
    for name, tensor in state.items():
        shape = reader.entries[entry_of[name]].spec.shape
        if shape != tuple(tensor.shape):
            return f"{name}: the model's is {tuple(tensor.shape)}, the file's {shape}"
    return None
