"""Blocks: depth that can go, found by running the model with candidates set to zero.

A residual block x + f(x) with all its tensors at zero returns x; so does relu(x + f(x)) where x was rectified
before. Such a block can be replaced by nothing at all, and the smaller model computes what the masked one
does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from laconic.surgery.coupling import BARE, Coupling, Group, first_names, whole
from laconic.surgery.guard import traced
from laconic.surgery.trial import outputs, sift

RESIDUE = 1e-6  # largest |output − input| of an identity, of the largest input


def blocks(model: nn.Module, inputs: Any, seconds: float = 60) -> Coupling:
    """Find the residual blocks of `model` that can be left out whole.

    A block is a module with layers inside, run once, whose output has the shape of its first argument, and
    which is the identity on the example with its tensors at zero; of nested ones, the innermost. Each is a
    group of a single member. Every one has been tried on a copy; the model itself is not run.

    Args:
        model: any module.
        inputs: example arguments of its forward: a tensor, a tuple, or a dictionary by name.
        seconds: limit for the trials.

    Raises:
        UnsupportedError: the time is up, or the model's forward fails.
    """
    with traced(model, inputs, seconds) as (copied, matching):
        shaped = _shaped_alike(copied, matching)
        identities = _identities(copied, matching, shaped)
        inner = [name for name in identities if not any(other.startswith(f"{name}.") for other in identities)]
        refused = {
            name: "with its tensors at zero it is not the identity"
            for name in shaped
            if not any(_nested(name, other) for other in identities)
        }
        groups, failed = sift(copied, matching, [_group(copied, name, shaped[name]) for name in inner])
    return Coupling(tuple(groups), refused | failed)


def _nested(name: str, other: str) -> bool:
    return f"{name}.".startswith(f"{other}.") or other.startswith(f"{name}.")


class _Watch:
    """First arguments and outputs of modules during one forward."""

    def __init__(self, model: nn.Module, names: Sequence[str], inputs: Any) -> None:
        self.runs: dict[str, list[tuple[Any, Any]]] = {name: [] for name in names}
        handles = [
            model.get_submodule(name).register_forward_hook(self._note(name), with_kwargs=True)
            for name in names
        ]
        try:
            outputs(model, inputs)
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, name: str) -> Any:
        def note(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
            first = next(iter((*args, *kwargs.values())), None)
            self.runs[name].append((first.clone() if isinstance(first, Tensor) else first, output))

        return note


def _shaped_alike(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Modules with layers inside that run once and return the shape they are given → how they return it."""
    outside = _shared(model)
    names = [
        name
        for name, module in model.named_modules()
        if name and any(True for _ in module.children()) and any(True for _ in module.parameters())
    ]
    found: dict[str, int] = {}
    for name, runs in _Watch(model, names, inputs).runs.items():
        if len(runs) == 1 and not outside & _identities_of(model.get_submodule(name)):
            first, output = runs[0]
            n_returned = _returned(output)
            leading = output if n_returned == BARE else output[0] if n_returned else None
            if isinstance(first, Tensor) and isinstance(leading, Tensor) and first.shape == leading.shape:
                found[name] = n_returned
    return found


def _returned(output: Any) -> int:
    if type(output) is tuple and output and all(rest is None for rest in output[1:]):
        return len(output)
    return BARE if isinstance(output, Tensor) else -1


def _shared(model: nn.Module) -> set[int]:
    """Identities of parameters that several modules hold."""
    seen: set[int] = set()
    shared: set[int] = set()
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                (shared if id(parameter) in seen else seen).add(id(parameter))
    return shared


def _identities_of(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters()}


@torch.no_grad()
def _identities(model: nn.Module, inputs: Any, shaped: Mapping[str, int]) -> list[str]:
    """Those of `shaped` that return what they are given when their tensors are zero.

    All are set to zero together. Those that are not the identity then feed zeros to others, so they are
    restored and the rest looked at again, until none drops out.
    """
    left = list(shaped)
    while left:
        zeroed = copy.deepcopy(model)
        for name in left:
            for parameter in zeroed.get_submodule(name).parameters():
                parameter.zero_()
        runs = _Watch(zeroed, left, inputs).runs
        passed = [name for name in left if _is_identity(*runs[name][0], shaped[name])]
        if passed == left:
            break
        left = passed
    return left


def _is_identity(first: Tensor, output: Any, n_returned: int) -> bool:
    leading = output if n_returned == BARE else output[0]
    peak = float(first.abs().max()) if first.numel() else 0.0
    return peak > 0 and float((first - leading).abs().max()) <= RESIDUE * peak


def _group(model: nn.Module, name: str, n_returned: int) -> Group:
    names = first_names(model)
    block = model.get_submodule(name)
    tensors = {names[id(t)]: t for t in (*block.parameters(), *block.buffers()) if t.ndim and id(t) in names}
    parts = tuple(whole(tensor_name, tensor) for tensor_name, tensor in tensors.items())
    return Group(name, parts, bypassed=name, n_returned=n_returned)
