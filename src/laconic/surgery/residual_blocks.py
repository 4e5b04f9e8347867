"""Blocks: depth that can go, found by running the model with candidates set to zero.

A residual block x + f(x) with all its tensors at zero returns x; so does relu(x + f(x)) where x was rectified before.
Such a block can be replaced by nothing at all, and the smaller model computes what the masked one does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from laconic.model.modules import first_names
from laconic.surgery.plan import RETURNS_TENSOR, Coupling, Group, Part
from laconic.surgery.verify import outputs, sandboxed, sift, variant, zeros

RESIDUE = 1e-6  # largest |output − input| of an identity, of the largest input
_Run: TypeAlias = tuple[Tensor, Tensor, int]  # first argument, leading output, length of the tuple that it leads


def find_residual_blocks(model: nn.Module, inputs: Any, seconds: float = 60) -> Coupling:
    """Find the residual blocks of `model` that can be left out whole.

    A block is a module with layers inside, run once, whose output has the shape of its first argument, and which is the
    identity on the example with its tensors at zero; of nested ones, the innermost. Each is a group of a single member
    that was tried on a copy; the model itself is not run.

    Arguments and errors are those of `find_channels`.
    """
    with sandboxed(model, inputs, seconds) as (copied, matching):
        shaped = _shaped_alike(copied, matching)
        identities = _identities(copied, matching, list(shaped))
        inner = [name for name in identities if not any(other.startswith(f"{name}.") for other in identities)]
        refused = {
            name: "with its tensors at zero it is not the identity"
            for name in shaped
            if not any(f"{name}.".startswith(f"{i}.") or f"{i}.".startswith(f"{name}.") for i in identities)
        }
        groups, failed = sift(copied, matching, [_group(copied, name, shaped[name]) for name in inner])
    return Coupling(tuple(groups), refused | failed)


def _watch(model: nn.Module, names: Sequence[str], inputs: Any) -> dict[str, _Run]:
    """What modules take and return in one forward; only those that run once, from a tensor to one of its shape."""
    runs: dict[str, list[_Run | None]] = {name: [] for name in names}
    modules = {model.get_submodule(name): name for name in names}
    given: dict[nn.Module, Any] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        first = next(iter((*args, *kwargs.values())), None)
        given[module] = first.clone() if isinstance(first, Tensor) else None  # sums in place come later

    def after(module: nn.Module, _: Any, output: Any) -> None:
        alone = type(output) is tuple and output and all(rest is None for rest in output[1:])
        leading: Any = output[0] if alone else output
        first, n_returned = given.pop(module), len(output) if alone else RETURNS_TENSOR
        alike = isinstance(leading, Tensor) and first is not None and first.shape == leading.shape
        run: Any = (first, leading.clone(), n_returned) if alike else None
        runs[modules[module]].append(run)

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_pre_hook(before, with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(after))
        outputs(model, inputs)
    return {name: found[0] for name, found in runs.items() if len(found) == 1 and found[0]}


def _shaped_alike(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Modules with layers inside that run once and return the shape they are given → how they return it."""
    holders = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    own = {name: [holders[id(p)] for p in module.parameters()] for name, module in model.named_modules()}
    names = [n for n in own if n and own[n] and any(True for _ in model.get_submodule(n).children())]
    # A block that shares parameters with another module cannot go.
    return {name: n for name, (_, _, n) in _watch(model, names, inputs).items() if max(own[name]) == 1}


def _identities(model: nn.Module, inputs: Any, left: list[str]) -> list[str]:
    """Those of `left` that return what they are given when their tensors are zero.

    All are set to zero together. Those that are not the identity then feed zeros to others, so they are restored and
    the rest looked at again, until none drops out.
    """
    while left:
        new = {i: zero for name in left for i, zero in zeros(model.get_submodule(name)).items()}
        runs = _watch(variant(model, new), left, inputs)
        passed: list[str] = []
        for name, (first, leading, _) in runs.items():
            peak = float(first.abs().max()) if first.numel() else 0.0
            if peak > 0 and float((first - leading).abs().max()) <= RESIDUE * peak:
                passed.append(name)
        if passed == left:
            break
        left = passed
    return left


def _group(model: nn.Module, name: str, n_returned: int) -> Group:
    names, block = first_names(model), model.get_submodule(name)
    tensors = {names[id(t)]: t for t in (*block.parameters(), *block.buffers()) if t.ndim and id(t) in names}
    parts = tuple(Part(n, 0, torch.arange(t.shape[0])[None]) for n, t in tensors.items())
    return Group(name, parts, bypassed=name, n_returned=n_returned)
