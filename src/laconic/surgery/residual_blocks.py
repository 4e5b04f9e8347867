"""Blocks: depth that can go, found by running the model with candidates set to zero.

A residual block x + f(x) with all its tensors at zero returns x; so does relu(x + f(x)) where x was rectified
before. Such a block can be replaced by nothing at all, and the smaller model computes what the masked one
does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from laconic.model.modules import first_names
from laconic.surgery.coupling import RETURNS_TENSOR, Coupling, Group, Part
from laconic.surgery.sandbox import sandboxed
from laconic.surgery.verify import outputs, sift, variant, zeros

RESIDUE = 1e-6  # largest |output − input| of an identity, of the largest input


def find_residual_blocks(model: nn.Module, inputs: Any, seconds: float = 60) -> Coupling:
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
    with sandboxed(model, inputs, seconds) as (copied, matching):
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


@dataclass(frozen=True)
class _Run:
    """What a module was given first and what it returned, as they were then: sums in place come later."""

    first: Tensor
    leading: Tensor
    n_returned: int


def _watch(model: nn.Module, names: Sequence[str], inputs: Any) -> dict[str, list[_Run | None]]:
    """The runs of modules in one forward; None for one that does not go from a tensor to a tensor."""
    runs: dict[str, list[_Run | None]] = {name: [] for name in names}
    given: dict[nn.Module, Any] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        first = next(iter((*args, *kwargs.values())), None)
        given[module] = first.clone() if isinstance(first, Tensor) else None

    def after(name: str) -> Any:
        return lambda module, _args, output: runs[name].append(_run(given.pop(module), output))

    handles: list[Any] = []
    try:
        for name in names:
            module = model.get_submodule(name)
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after(name)))
        outputs(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return runs


def _shaped_alike(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Modules with layers inside that run once and return the shape they are given → how they return it."""
    shared = _shared(model)
    names = [
        name
        for name, module in model.named_modules()
        if name and any(True for _ in module.children()) and any(True for _ in module.parameters())
    ]
    found: dict[str, int] = {}
    for name, runs in _watch(model, names, inputs).items():
        run = runs[0] if len(runs) == 1 else None
        own = {id(parameter) for parameter in model.get_submodule(name).parameters()}
        if run and run.first.shape == run.leading.shape and not shared & own:
            found[name] = run.n_returned
    return found


def _run(first: Any, output: Any) -> _Run | None:
    """None where the output is of a kind that a bypass cannot imitate."""
    alone = type(output) is tuple and output and all(rest is None for rest in output[1:])
    n_returned, leading = (len(output), output[0]) if alone else (RETURNS_TENSOR, output)
    if not (isinstance(first, Tensor) and isinstance(leading, Tensor)):
        return None
    return _Run(first, leading.clone(), n_returned)


def _shared(model: nn.Module) -> set[int]:
    """Identities of parameters that several modules hold."""
    holders = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    return {identity for identity, n in holders.items() if n > 1}


def _identities(model: nn.Module, inputs: Any, shaped: Mapping[str, int]) -> list[str]:
    """Those of `shaped` that return what they are given when their tensors are zero.

    All are set to zero together. Those that are not the identity then feed zeros to others, so they are
    restored and the rest looked at again, until none drops out.
    """
    left = list(shaped)
    while left:
        new = {i: zero for name in left for i, zero in zeros(model.get_submodule(name)).items()}
        runs = _watch(variant(model, new), left, inputs)
        passed = [name for name in left if _is_identity(runs[name])]
        if passed == left:
            break
        left = passed
    return left


def _is_identity(runs: Sequence[_Run | None]) -> bool:
    run = runs[0] if len(runs) == 1 else None
    if run is None or run.first.shape != run.leading.shape or not run.first.numel():
        return False
    peak = float(run.first.abs().max())
    return peak > 0 and float((run.first - run.leading).abs().max()) <= RESIDUE * peak


def _group(model: nn.Module, name: str, n_returned: int) -> Group:
    names = first_names(model)
    block = model.get_submodule(name)
    tensors = {names[id(t)]: t for t in (*block.parameters(), *block.buffers()) if t.ndim and id(t) in names}
    parts = tuple(Part(n, 0, torch.arange(t.shape[0])[None]) for n, t in tensors.items())
    return Group(name, parts, bypassed=name, n_returned=n_returned)
