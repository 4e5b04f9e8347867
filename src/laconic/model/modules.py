"""What the package needs of any module: its names, its mode, its state, one forward pass."""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from laconic.errors import MismatchError, UnsupportedError


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside the wrappers of `torch.compile` and (distributed) data parallelism."""
    inner = getattr(model, "_orig_mod", None)
    if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
        inner = model.module
    return unwrap(inner) if isinstance(inner, nn.Module) else model


def first_names(model: nn.Module) -> dict[int, str]:
    """Identity of each tensor of the state → its first name there."""
    state = model.state_dict(keep_vars=True)
    return {id(tensor): name for name, tensor in reversed(state.items()) if isinstance(tensor, Tensor)}


def call(model: nn.Module, inputs: Any) -> Any:
    """One forward pass: a mapping is passed as keywords, a tuple or list as arguments, anything else alone."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    several = isinstance(inputs, (tuple, list)) and not isinstance(inputs, PackedSequence)
    return model(*inputs) if several else model(inputs)


def n_examples(inputs: Any) -> int | None:
    """Length of the first dimension of the first tensor among the inputs; None if there is no such tensor."""
    if isinstance(inputs, Tensor):
        return len(inputs) if inputs.ndim else None
    if isinstance(inputs, PackedSequence):
        return int(inputs.batch_sizes[0])
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (tuple, list)) else ()
    return next((n for n in map(n_examples, parts) if n is not None), None)


def map_tensors(function: Callable[[Any], Any], found: Any) -> Any:
    """`found` with `function` applied to its tensors and packed sequences, through mappings, tuples and lists."""
    if isinstance(found, (Tensor, PackedSequence)):
        return function(found)
    if isinstance(found, Mapping):
        return {key: map_tensors(function, inner) for key, inner in found.items()}
    if isinstance(found, (tuple, list)):
        parts = [map_tensors(function, inner) for inner in found]
        return type(found)(*parts) if hasattr(found, "_fields") else type(found)(parts)
    return found


def moved(found: Any, device: torch.device) -> Any:
    """`found` with its tensors on a device."""
    return map_tensors(lambda part: part.to(device), found)


def sliced(batch: Any, chosen: slice) -> Any:
    """Some examples of a batch; tensors without dimensions stay."""

    def part(found: Tensor | PackedSequence) -> Tensor | PackedSequence:
        if isinstance(found, PackedSequence):
            return pack_sequence(unpack_sequence(found)[chosen], enforce_sorted=False)
        return found[chosen] if found.ndim else found

    return map_tensors(part, batch)


def refuse_uninitialized(name: str, parameter: Tensor) -> None:
    """Raise MismatchError for a parameter of a lazy layer that was never run."""
    if isinstance(parameter, UninitializedParameter):
        raise MismatchError(f"{name}: not initialised yet; run the model once first")


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter; the CPU for a model without parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model.

    Raises:
        UnsupportedError: it holds what cannot be copied, such as a lock, an open file or a kept activation; or a
            ``__deepcopy__`` of its own shares tensors with it.
    """
    where = f"{type(model).__name__}: cannot be copied"
    try:
        found = copy.deepcopy(model)
    except Exception as error:  # whatever the model's parts raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(f"{where}: {reason}") from error
    if not isinstance(found, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UnsupportedError(f"{where}: its __deepcopy__ returns a {type(found).__name__}")
    mine = first_names(model)
    if shared := next((mine[tensor] for tensor in first_names(found) if tensor in mine), None):
        raise UnsupportedError(f"{where}: its __deepcopy__ leaves {shared} shared with the copy")
    return found


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards, also after an error, each module's mode is as before."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def n_nonzero(tensor: Tensor) -> int:
    """Number of elements that are not zero."""
    narrow = tensor.is_floating_point() and tensor.dtype.itemsize == 1  # PyTorch cannot count in float8
    return int((tensor.float() if narrow else tensor).count_nonzero())


def raw_bytes(tensor: Tensor) -> bytes | memoryview:
    """A tensor's elements in row-major order; its own memory if it is contiguous."""
    if not tensor.numel():
        return b""
    raw: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(raw)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """The SHA-256, in hex, of names, types, shapes and values, by name. `docs/format.md`, "Parent"."""
    whole = hashlib.sha256()
    for name in sorted(state, key=str.encode):
        tensor = state[name].detach().cpu()
        values = hashlib.sha256(raw_bytes(tensor)).hexdigest()
        kind, shape = str(tensor.dtype).removeprefix("torch."), "x".join(map(str, tensor.shape))
        whole.update(f"{len(name.encode())} {name} {kind} {shape} {values}\n".encode())
    return whole.hexdigest()


def notice_hooks() -> None:
    """Make compiled modules trace again, since they do not notice hooks that come or go."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
