"""Replaying a plan on a model, and on the optimizer that trains it.

New tensors are made first and put in place afterwards, each step with its undoing: whatever fails, the model
and the optimizer are what they were. Parameters become new objects, so that no graph of an earlier step meets
another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from laconic.errors import MismatchError, UnsupportedError
from laconic.surgery.coupling import RETURNS_TENSOR
from laconic.surgery.plan import Plan

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Bypass(nn.Module):
    """Stands where a residual block was, and returns its first argument as the block did.

    Args:
        n_returned: 0 for a tensor; otherwise the length of a tuple that it leads, the rest being None.
    """

    def __init__(self, n_returned: int = RETURNS_TENSOR) -> None:
        super().__init__()
        self.n_returned = n_returned

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The first argument."""
        first = args[0] if args else next(iter(kwargs.values()))
        return first if self.n_returned == RETURNS_TENSOR else (first, *[None] * (self.n_returned - 1))

    def extra_repr(self) -> str:
        """What it returns."""
        return "" if self.n_returned == RETURNS_TENSOR else f"n_returned={self.n_returned}"


def refuse_distributed(model: nn.Module) -> None:
    """UnsupportedError for a wrapper that would go on exchanging gradients of parameters that are gone."""
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
            if not (0 <= axis < len(shape) and len(kept) and _increasing(kept, shape[axis])):
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
            _put(undo, _children_of(model, name), name.rpartition(".")[2], Bypass(n_returned))
        for module in model.modules():
            _replace_tensors(undo, module, new)
        for (name, attribute), value in plan.settings.items():
            _put(undo, vars(model.get_submodule(name)), attribute, value)
        if groups_and_state:
            _put_optimizer(undo, *groups_and_state)
        return undo.pop_all()


def _increasing(kept: Tensor, n: int) -> bool:
    return int(kept[0]) >= 0 and int(kept[-1]) < n and bool((kept.diff() > 0).all())


def _children_of(model: nn.Module, name: str) -> dict[str, Any]:
    return model.get_submodule(name.rpartition(".")[0])._modules


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


def _replace_tensors(undo: ExitStack, module: nn.Module, new: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    touched = False
    for tensors in (module._parameters, module._buffers):
        for name, tensor in list(tensors.items()):
            if tensor is not None and id(tensor) in new:
                _put(undo, tensors, name, new[id(tensor)][1])
                touched = True
    if touched:
        for attribute, value in _derived(module).items():
            _put(undo, vars(module), attribute, value)


def _derived(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that follow from its tensors' shapes."""
    shape = tuple(next(t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None).shape)
    for kinds, names in _ATTRIBUTES:
        if isinstance(module, kinds):
            return names(module, shape)
    return {}


def _convolution(module: Any, shape: tuple[int, ...]) -> dict[str, int]:
    depthwise = module.groups == module.in_channels == module.out_channels
    groups = shape[0] if depthwise else module.groups
    first, second = shape[0], shape[1] * groups
    n_in, n_out = (first, second) if module.transposed else (second, first)
    return {"in_channels": n_in, "out_channels": n_out, "groups": groups}


_ATTRIBUTES: tuple[tuple[Any, Callable[[Any, tuple[int, ...]], dict[str, Any]]], ...] = (
    (nn.Linear, lambda _, shape: {"out_features": shape[0], "in_features": shape[1]}),
    (nn.modules.conv._ConvNd, _convolution),
    (nn.modules.batchnorm._NormBase, lambda _, shape: {"num_features": shape[0]}),
    ((nn.LayerNorm, nn.RMSNorm), lambda _, shape: {"normalized_shape": shape}),
    (nn.GroupNorm, lambda _, shape: {"num_channels": shape[0]}),
    (nn.PReLU, lambda _, shape: {"num_parameters": shape[0]}),
    ((nn.Embedding, nn.EmbeddingBag), lambda _, shape: {"num_embeddings": shape[0], "embedding_dim": shape[1]}),
)


def _optimizer_after(
    optimizer: Any, model: nn.Module, plan: Plan, new: Mapping[int, tuple[Tensor, Tensor]]
) -> tuple[Any, list[list[Tensor]], dict[Tensor, Any]]:
    """The optimizer, its groups' parameters and its state, as they will be."""
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
            cut = {k: _cut_state(k, v, names[id(key)], key, plan) for k, v in values.items()}
            state[new[id(key)][1]] = cut
        elif id(key) not in gone:
            state[key] = values
    return optimizer, params, state


def _cut_state(key: str, value: Any, name: str, parameter: Tensor, plan: Plan) -> Any:
    if not isinstance(value, Tensor) or value.numel() == 1:
        return value
    broadcasts = value.ndim == parameter.ndim and all(
        n in (1, whole) for n, whole in zip(value.shape, parameter.shape, strict=True)
    )
    if not broadcasts:
        raise UnsupportedError(
            f"{name}: the optimizer's {key} is {tuple(value.shape)}, the parameter {tuple(parameter.shape)}: "
            "it cannot be cut alike"
        )
    return _like(value, plan.cut(name, value))


def _put_optimizer(undo: ExitStack, optimizer: Any, params: list[list[Tensor]], state: dict[Tensor, Any]) -> None:
    for group, parameters in zip(optimizer.param_groups, params, strict=True):
        _put(undo, group, "params", parameters)
    before = dict(optimizer.state)
    undo.callback(_refill, optimizer.state, before)
    _refill(optimizer.state, state)


def _refill(where: dict[Any, Any], content: Mapping[Any, Any]) -> None:
    where.clear()
    where.update(content)
