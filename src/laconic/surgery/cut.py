"""Replaying a plan on a model, and on the optimizer that trains it.

New tensors are made first and put in place afterwards, and each step can be undone: whatever fails, the model and the
optimizer are what they were. Parameters become new objects, so that no graph of an earlier step meets another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from laconic.errors import MismatchError, UnsupportedError
from laconic.surgery.plan import RETURNS_TENSOR, Plan

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Bypass(nn.Module):
    """Takes the place of a residual block, and returns its first argument as the block did: see `Group.n_returned`."""

    def __init__(self, n_returned: int = RETURNS_TENSOR) -> None:
        super().__init__()
        self.n_returned = n_returned

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(iter(kwargs.values()))
        return first if self.n_returned == RETURNS_TENSOR else (first, *[None] * (self.n_returned - 1))

    @override
    def extra_repr(self) -> str:
        return "" if self.n_returned == RETURNS_TENSOR else f"n_returned={self.n_returned}"


def refuse_distributed(model: nn.Module) -> None:
    """UnsupportedError for a wrapper that would still exchange gradients of removed parameters."""
    if type(model).__name__ == "DistributedDataParallel":
        raise UnsupportedError("DistributedDataParallel: expected the module inside; cut it, then wrap it again")


def check(model: nn.Module, plan: Plan) -> None:
    """MismatchError where the plan's names, shapes and attributes are not the model's."""
    state = model.state_dict(keep_vars=True)
    for name, shape in plan.shapes.items():
        if name not in state:
            raise MismatchError(f"{name}: the plan has it, the model does not")
        if tuple(state[name].shape) != tuple(shape):
            raise MismatchError(f"{name}: plan is for {tuple(shape)}, tensor is {tuple(state[name].shape)}")
        for axis, kept in plan.kept[name].items():
            increasing = len(kept) and kept[0] >= 0 and bool((kept.diff() > 0).all())
            if not (increasing and 0 <= axis < len(shape) and kept[-1] < shape[axis]):
                raise MismatchError(f"{name}: expected increasing positions along axis {axis} of {tuple(shape)}")
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in plan.bypassed:
        if name not in modules or not name:
            raise MismatchError(f"{name!r}: the plan bypasses it, the model has no such module")
    for (name, attribute), value in plan.settings.items():
        found = vars(modules[name]).get(attribute) if name in modules else None
        if type(found) is not int or not 0 < value <= found:
            raise MismatchError(f"{name}.{attribute}: expected an integer of at least {value}, found {found!r}")


def cut_(model: nn.Module, plan: Plan, optimizer: Optimizer | None = None) -> ExitStack:
    """Cut an unwrapped model; closing the stack that is returned undoes it, `pop_all()` keeps it."""
    check(model, plan)
    new = _replacements(model, plan)
    groups_and_state = _optimizer_after(optimizer, model, plan, new) if optimizer else None
    with ExitStack() as undo:
        for name, n_returned in plan.bypassed.items():
            parent, _, child = name.rpartition(".")
            _put(undo, model.get_submodule(parent)._modules, child, Bypass(n_returned))
        for module in model.modules():
            held = [(d, name) for d in (module._parameters, module._buffers) for name, t in d.items() if id(t) in new]
            for tensors, name in held:
                _put(undo, tensors, name, new[id(tensors[name])][1])
            for attribute, value in _derived(module).items() if held else ():
                _put(undo, vars(module), attribute, value)
        for (name, attribute), value in plan.settings.items():
            _put(undo, vars(model.get_submodule(name)), attribute, value)
        if groups_and_state:
            groups, state, parameters, new_state = groups_and_state
            for group, params in zip(groups, parameters, strict=True):
                _put(undo, group, "params", params)
            undo.callback(_refill, state, dict(state))
            _refill(state, new_state)
        return undo.pop_all()


def _put(undo: ExitStack, where: dict[Any, Any], key: Any, value: Any) -> None:
    undo.callback(where.__setitem__, key, where[key])
    where[key] = value


def _replacements(model: nn.Module, plan: Plan) -> dict[int, tuple[Tensor, Tensor]]:
    """Identity of each tensor that is cut → itself, which keeps the identity its own, and its successor."""
    state = model.state_dict(keep_vars=True)
    new: dict[int, tuple[Tensor, Tensor]] = {}
    for name in plan.kept:
        old = state[name]
        smaller: Tensor = _like(old, plan.cut(name, old.detach()))
        if isinstance(old, nn.Parameter):
            smaller = nn.Parameter(smaller, old.requires_grad)
            vars(smaller).update(vars(old))
            if old.grad is not None:
                smaller.grad = _like(old.grad, plan.cut(name, old.grad))
        new[id(old)] = old, smaller
    return new


def _like(old: Tensor, smaller: Tensor) -> Tensor:
    """`smaller` in the memory format of `old`."""
    channels_last = _CHANNELS_LAST.get(old.ndim)
    if channels_last and old.is_contiguous(memory_format=channels_last) and not old.is_contiguous():
        return smaller.contiguous(memory_format=channels_last)
    return smaller.contiguous()


def _derived(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that follow from its tensors' shapes."""
    shape = tuple(next(t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None).shape)
    found: dict[str, Any] = {}
    match module:
        case nn.Linear():
            found = {"out_features": shape[0], "in_features": shape[1]}
        case nn.modules.conv._ConvNd():
            depthwise = module.groups == module.in_channels == module.out_channels
            groups = shape[0] if depthwise else module.groups
            n_in, n_out = (shape[0], shape[1] * groups) if module.transposed else (shape[1] * groups, shape[0])
            found = {"in_channels": n_in, "out_channels": n_out, "groups": groups}
        case nn.modules.batchnorm._NormBase():
            found = {"num_features": shape[0]}
        case nn.LayerNorm() | nn.RMSNorm():
            found = {"normalized_shape": shape}
        case nn.GroupNorm():
            found = {"num_channels": shape[0]}
        case nn.PReLU():
            found = {"num_parameters": shape[0]}
        case nn.Embedding() | nn.EmbeddingBag():
            found = {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    return found


def _optimizer_after(
    optimizer: Any, model: nn.Module, plan: Plan, new: Mapping[int, tuple[Tensor, Tensor]]
) -> tuple[list[dict[str, Any]], dict[Tensor, Any], list[list[Tensor]], dict[Tensor, Any]]:
    """The optimizer's groups and state, and the groups' parameters and the state as they will be."""
    if type(optimizer).__name__ == "AcceleratedOptimizer":
        optimizer = optimizer.optimizer
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UnsupportedError("LBFGS: expected a state for each parameter, found one for all; make it anew")
    names = {id(t): n for n, t in reversed(model.state_dict(keep_vars=True).items())}
    gone = {id(p) for name in plan.bypassed for p in model.get_submodule(name).parameters()}
    params = [
        [new[id(p)][1] if id(p) in new else p for p in group["params"] if id(p) not in gone]
        for group in optimizer.param_groups
    ]
    state: dict[Tensor, Any] = {}
    for key, values in optimizer.state.items():
        if id(key) in new:
            state[new[id(key)][1]] = {k: _cut_state(k, v, names[id(key)], key, plan) for k, v in values.items()}
        elif id(key) not in gone:
            state[key] = values
    return optimizer.param_groups, optimizer.state, params, state


def _cut_state(key: str, value: Any, name: str, parameter: Tensor, plan: Plan) -> Any:
    if not isinstance(value, Tensor) or value.numel() == 1:
        return value
    broadcasts = value.ndim == parameter.ndim and all(
        n in (1, whole) for n, whole in zip(value.shape, parameter.shape, strict=True)
    )
    if not broadcasts:
        shapes = f"the optimizer's {key} is {tuple(value.shape)}, the parameter {tuple(parameter.shape)}"
        raise UnsupportedError(f"{name}: {shapes}: it cannot be cut alike")
    return _like(value, plan.cut(name, value))


def _refill(where: dict[Any, Any], content: Mapping[Any, Any]) -> None:
    where.clear()
    where.update(content)
