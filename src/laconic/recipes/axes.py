"""The registry: every axis, its names, and what each builds.

This is the only list. A name is the Python name in lower case with dashes, an option a parameter of what it
builds: recipes are read by it, errors and the table of `laconic prune --axes` are made from it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from laconic.pruning import budgets, criteria
from laconic.pruning.contests import Budget, Model, Row, Run, Tensor
from laconic.pruning.criteria import Criterion
from laconic.pruning.solvers import Cut, LeastSquares, SparseGpt
from laconic.pruning.units import Block, Coupled, Unit, Weight
from laconic.recipes import methods
from laconic.recipes.options import REQUIRED, Choice, Option, options_of, shown

Each: TypeAlias = Literal["weights", "macs"] | float
MakeBudget: TypeAlias = Callable[[float], Budget]
MakeOptimizer: TypeAlias = Callable[[Any], Optimizer]
MakeScheduler: TypeAlias = Callable[[Optimizer], LRScheduler] | None


@dataclass(frozen=True)
class Setting:
    """What a choice may depend on, beside its options.

    Attributes:
        model: the dense network.
        inputs: an example of its inputs.
        seed: of the run.
        epochs: of the training that it belongs to.
    """

    model: nn.Module
    inputs: Any
    seed: int = 0
    epochs: int = 1


def density(setting: Setting, each: Each = "weights") -> MakeBudget:
    """All but the amount stays, of the `each` = weights, multiply-adds, or bits a weight."""
    return partial(budgets.Density, each=_each(setting, each))


def count(n: int) -> MakeBudget:
    """So many members stay in every contest."""
    budget = budgets.Count(n)
    return lambda _: budget


def erk() -> MakeBudget:
    """All but the amount stays, small layers denser than large ones (Erdős–Rényi kernel)."""
    return budgets.Erk


def rates(densities: Mapping[str, float], otherwise: float = 1.0) -> MakeBudget:
    """A fraction that stays for each tensor, by selector."""
    budget = budgets.Rates(densities, otherwise)
    return lambda _: budget


def total(setting: Setting, limit: float, each: Each = "weights") -> MakeBudget:
    """All that stays costs no more than a limit, in weights, multiply-adds, or bits."""
    budget = budgets.Total(limit, _each(setting, each))
    return lambda _: budget


def price(bits_saved: float = 1.0, each: float = budgets.BITS_OF_FLOAT32) -> MakeBudget:
    """What saves more than `bits_saved` bits for each bit that the data lose goes."""
    budget = budgets.Price(bits_saved, each)
    return lambda _: budget


def _each(setting: Setting, each: Each) -> float | Mapping[str, float]:
    if each == "macs":
        from laconic.surgery.macs import macs

        return macs(setting.model, setting.inputs)
    return 1.0 if each == "weights" else float(each)


def random(setting: Setting, seed: int | None = None) -> Criterion:
    """Uniform random scores, by the run's seed unless one is given: the control."""
    return criteria.random(setting.seed if seed is None else seed)


def channels(setting: Setting) -> Unit:
    """Neurons and filters with all that depends on them: the network is really cut."""
    from laconic.surgery.channels import channels as find

    return Coupled(find(setting.model, setting.inputs))


def heads(setting: Setting) -> Unit:
    """Attention heads; the network is really cut."""
    from laconic.surgery.heads import heads as find

    return Coupled(find(setting.model, setting.inputs))


def blocks(setting: Setting) -> Unit:
    """Residual blocks; the network is really cut."""
    from laconic.surgery.blocks import blocks as find

    return Coupled(find(setting.model, setting.inputs))


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


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).replace("_", "-").lower()


def _by_name(*constructors: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {_kebab(constructor.__name__): constructor for constructor in constructors}


def _itself(criterion: Any) -> Callable[[], Criterion]:
    def build() -> Criterion:
        return criterion

    build.__name__, build.__doc__ = criterion.__name__, criterion.__doc__
    return build


_CRITERIA = (
    criteria.magnitude,
    criteria.squared_magnitude,
    criteria.lamp,
    criteria.taylor,
    criteria.fisher,
    criteria.snip,
    criteria.movement,
    criteria.wanda,
    criteria.output_error,
    criteria.obs,
    criteria.norm_scale,
)

AXES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "criterion": _by_name(*map(_itself, _CRITERIA), random),
    "unit": _by_name(Weight, Block, channels, heads, blocks),
    "scope": _by_name(Model, Tensor, Row, Run),
    "budget": _by_name(density, count, erk, rates, total, price),
    "solver": _by_name(Cut, LeastSquares, SparseGpt),
    "method": _by_name(
        methods.OneShot,
        methods.Iterative,
        methods.Gradual,
        methods.Lottery,
        methods.Set,
        methods.Rigl,
        methods.Gates,
        methods.VariationalDropout,
        methods.Shorten,
        methods.Proximal,
    ),
    "optimizer": _by_name(sgd, adam, adamw),
    "scheduler": _by_name(constant, cosine, multi_step),
}
COUPLED = frozenset({"channels", "heads", "blocks"})
BY_AMOUNT = frozenset({"density", "erk"})


def needs_setting(axis: str, name: str) -> bool:
    """Whether what a name builds depends on the network, the data or the run."""
    return "setting" in inspect.signature(AXES[axis][name]).parameters


def build(axis: str, choice: Choice, setting: Setting) -> Any:
    """What a choice stands for."""
    bound = {"setting": setting} if needs_setting(axis, choice.name) else {}
    return AXES[axis][choice.name](**choice.options, **bound)


def rows() -> Iterator[tuple[str, str, str, str]]:
    """The registry as a table: axis, name, options, what it does."""
    for axis, names in AXES.items():
        for name, constructor in names.items():
            options = ", ".join(_signature(*item) for item in options_of(constructor).items())
            yield axis, name, options, inspect.getdoc(constructor).partition("\n")[0]  # pyright: ignore[reportOptionalMemberAccess]


def _signature(name: str, option: Option) -> str:
    return name if option.default in (REQUIRED, None) else f"{name} = {shown(option.default)}"
