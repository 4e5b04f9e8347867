"""The registry: every axis, its names, and what each builds.

A name is the Python name in lower case with dashes; an option is a parameter of what it builds. Recipes are
read by it, errors and the table of `laconic prune --axes` are made from it. Criteria register themselves, by
their decorator.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import msgspec
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from laconic.pruning import criteria
from laconic.pruning.budgets import BITS_OF_FLOAT32, Budget, Count, Density, Erk, Price, Rates, Total
from laconic.pruning.criteria import CRITERIA, Criterion
from laconic.pruning.scopes import NM, Global, PerRow, PerTensor
from laconic.pruning.solvers import Cut, LeastSquares, SparseGPT
from laconic.pruning.units import Block, Coupled, Unit, Weight
from laconic.recipes.methods import METHODS, MethodContext
from laconic.recipes.options import Choice, options_of, shown

Each: TypeAlias = Literal["weights", "macs"] | float
MakeOptimizer: TypeAlias = Callable[[Any], Optimizer]
MakeScheduler: TypeAlias = Callable[[Optimizer], LRScheduler] | None
Constructors: TypeAlias = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Setting:
    """What a choice may depend on, beside its options.

    Attributes:
        model: the dense network.
        inputs: an example of its inputs.
        seed: that of the run.
        epochs: those of the training that the choice belongs to.
    """

    model: nn.Module
    inputs: Any
    seed: int = 0
    epochs: int = 1


def density(setting: Setting, each: Each = "weights") -> Budget:
    """All but the amount stays, of the `each` = weights, multiply-adds, or bits a weight."""
    return Density(each=_each(setting, each))


def erk() -> Budget:
    """All but the amount stays, small layers denser than large ones (Erdős–Rényi kernel)."""
    return Erk()


def total(setting: Setting, limit: float, each: Each = "weights") -> Budget:
    """All that stays costs no more than a limit, in weights, multiply-adds, or bits."""
    return Total(limit, _each(setting, each))


def price(bits_saved: float = 1.0, each: float = BITS_OF_FLOAT32) -> Budget:
    """What saves more than `bits_saved` bits for each bit that the data lose goes."""
    return Price(bits_saved, each)


def _each(setting: Setting, each: Each) -> float | Mapping[str, float]:
    if each == "macs":
        from laconic.surgery.macs import count_macs

        return count_macs(setting.model, setting.inputs)
    return 1.0 if each == "weights" else float(each)


def random(setting: Setting, seed: int | None = None) -> Criterion:
    """Uniform random scores, by the run's seed unless one is given: the control."""
    return criteria.random(setting.seed if seed is None else seed)


def channels(setting: Setting) -> Unit:
    """Neurons and filters with all that depends on them: the network is really cut."""
    from laconic.surgery.channels import find_channels

    return Coupled(find_channels(setting.model, setting.inputs))


def heads(setting: Setting) -> Unit:
    """Attention heads; the network is really cut."""
    from laconic.surgery.heads import find_heads

    return Coupled(find_heads(setting.model, setting.inputs))


def blocks(setting: Setting) -> Unit:
    """Residual blocks; the network is really cut."""
    from laconic.surgery.residual_blocks import find_residual_blocks

    return Coupled(find_residual_blocks(setting.model, setting.inputs))


def sgd(lr: float, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False) -> MakeOptimizer:
    """Stochastic gradient descent."""
    options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
    return partial(torch.optim.SGD, **options)


def adam(lr: float = 1e-3, weight_decay: float = 0.0) -> MakeOptimizer:
    """Adam."""
    return partial(torch.optim.Adam, lr=lr, weight_decay=weight_decay)


def adamw(lr: float = 1e-3, weight_decay: float = 0.01) -> MakeOptimizer:
    """Adam with decoupled weight decay."""
    return partial(torch.optim.AdamW, lr=lr, weight_decay=weight_decay)


def constant() -> MakeScheduler:
    """The learning rate stays."""
    return None


def cosine(setting: Setting) -> MakeScheduler:
    """Down to zero along half a cosine, over the training's epochs."""
    return partial(CosineAnnealingLR, T_max=setting.epochs)


def multi_step(milestones: tuple[int, ...], gamma: float = 0.1) -> MakeScheduler:
    """Times `gamma` after each of these epochs."""
    return partial(MultiStepLR, milestones=list(milestones), gamma=gamma)


def _itself(criterion: Criterion) -> Callable[[], Criterion]:
    """What builds a criterion that has no options."""

    def build() -> Criterion:
        return criterion

    build.__doc__ = criterion.__doc__
    return build


def _by_name(*constructors: Callable[..., Any]) -> Constructors:
    return {kebab(constructor.__name__): constructor for constructor in constructors}


def kebab(name: str) -> str:
    """A Python name in lower case with dashes."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.strip("_")).replace("_", "-").lower()


_FIXED: Mapping[str, Constructors] = {
    "unit": _by_name(Weight, Block, channels, heads, blocks),
    "scope": {"model": Global, "tensor": PerTensor, "row": PerRow, "run": NM},
    "budget": _by_name(density, Count, erk, Rates, total, price),
    "solver": _by_name(Cut, LeastSquares, SparseGPT),
    "method": _by_name(*METHODS),
    "optimizer": _by_name(sgd, adam, adamw),
    "scheduler": _by_name(constant, cosine, multi_step),
}
AXES = ("criterion", *_FIXED)
COUPLED = frozenset({"channels", "heads", "blocks"})
BY_AMOUNT = frozenset({"density", "erk"})


def names_of(axis: str) -> Constructors:
    """The names of an axis, and what each builds."""
    if axis != "criterion":
        return _FIXED[axis]
    registered = {kebab(name): _itself(criterion) for name, criterion in CRITERIA.items()}
    return {**registered, "random": random}


def needs_setting(axis: str, name: str) -> bool:
    """Whether what a name builds depends on the network, the data or the run."""
    return "setting" in inspect.signature(names_of(axis)[name]).parameters


def build(axis: str, choice: Choice, setting: Setting) -> Any:
    """What a choice stands for."""
    bound = {"setting": setting} if needs_setting(axis, choice.name) else {}
    return names_of(axis)[choice.name](**choice.options, **bound)


def run_method(choice: Choice, context: MethodContext) -> None:
    """Prune and train the context's model by a method."""
    names_of("method")[choice.name](context, **choice.options)


def rows() -> Iterator[tuple[str, str, str, str]]:
    """The registry as a table: axis, name, options, what it does."""
    for axis in AXES:
        for name, constructor in names_of(axis).items():
            options = ", ".join(map(_signature, msgspec.structs.fields(options_of(constructor))))
            yield axis, name, options, (inspect.getdoc(constructor) or "").partition("\n")[0]


def _signature(option: msgspec.structs.FieldInfo) -> str:
    known = not option.required and option.default is not None
    return f"{option.name} = {shown(option.default)}" if known else option.name
