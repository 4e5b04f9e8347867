"""The registry: every axis, its names, what each builds, and the plain values that are its options.

A name is the Python name in lower case with dashes; an option is a parameter of what it builds. msgspec checks values,
as TOML has them, against the options' names, types, bounds (`msgspec.Meta`) and defaults, which are read from the
signature, so that nothing is listed twice. Recipes are read by the registry, errors and the table of
`laconic prune --axes` are made from it. Criteria register themselves, by their decorator.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache, partial
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import msgspec
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from laconic.core.text import did_you_mean
from laconic.errors import MismatchError
from laconic.pruning import criteria
from laconic.pruning.budgets import BITS_OF_FLOAT32, Budget, Count, Density, Erk, Price, Rates, Total
from laconic.pruning.criteria import CRITERIA, Criterion
from laconic.pruning.scopes import NM, Global, PerRow, PerTensor
from laconic.pruning.solvers import Cut, LeastSquares, SparseGPT
from laconic.pruning.units import Block, Coupled, Unit, Weight
from laconic.recipes.methods import METHODS
from laconic.surgery.channels import find_channels
from laconic.surgery.heads import find_heads
from laconic.surgery.macs import count_macs
from laconic.surgery.residual_blocks import find_residual_blocks

HIDDEN = {"setting", "context"}  # parameters that no recipe states
TYPES = {"int": "an integer", "float": "a number", "str": "a string", "bool": "true or false"}
TYPES |= {"array": "a list", "object": "a table", "null": ""}


@dataclass(frozen=True)
class Choice:
    """A name of an axis, with all its options: plain values by name, defaults filled in."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@cache
def options_of(constructor: Callable[..., Any]) -> type[msgspec.Struct]:
    """The options of a constructor, as a struct."""
    of = constructor.__init__ if inspect.isclass(constructor) else constructor
    kinds = get_type_hints(of, include_extras=True)
    fields: list[Any] = []
    for name, parameter in inspect.signature(constructor).parameters.items():
        if name not in HIDDEN:
            kind, default = kinds[name], parameter.default
            if any(map(is_dataclass, (kind, *get_args(kind)))):
                kind, default = Any, None  # a choice or a table of further options, which is read apart
            elif default is inspect.Parameter.empty and NoneType in get_args(kind):
                default = None  # TOML has no null: what may be None is None where it is left out
            required = default is inspect.Parameter.empty
            fields.append((name, kind) if required else (name, kind, default))
    return msgspec.defstruct("Options", fields, kw_only=True, forbid_unknown_fields=True)


def read_fields(struct: type[msgspec.Struct], given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The value of every field of a struct, defaults filled in, from values by name; `place` begins errors.

    Raises:
        MismatchError: a name is unknown or missing, or a value has another type or range.
    """
    fields = {one.name: one for one in msgspec.structs.fields(struct)}
    for name in given:
        if name not in fields:
            expected = one_of(fields, name, "one of" if fields else "no option")
            raise MismatchError(f"{place}: {expected}" if place else f"{name}: {expected}")
    for name, one in fields.items():
        where = f"{place}.{name}" if place else name
        if name in given:
            _check(one.type, given[name], where)
        elif one.required:
            _check(one.type, None, where)
    return msgspec.structs.asdict(msgspec.convert(dict(given), struct))


def _check(kind: Any, value: Any, place: str) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise MismatchError(f"{place}: expected a number, found nan")
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error).partition(" - at")[0]
        bound = re.match(r"Expected `([^`]*)`(?: ([<>]=? \S+))?", message)
        if bound is None:  # a literal
            literals = [one for one in (kind, *get_args(kind)) if get_origin(one) is Literal]
            names = [name for literal in literals for name in get_args(literal)]
            numbers = ["a number"] if float in get_args(kind) else []
            expected = " or ".join([*map(repr, names), *numbers])
            hint = did_you_mean(value, names)
            raise MismatchError(f"{place}: expected {expected}, found {shown(value)}{hint}") from error
        types = " or ".join(filter(None, (TYPES.get(one, one) for one in bound[1].split(" | "))))
        expected = f"{types} {bound[2]}" if bound[2] else types
        raise MismatchError(f"{place}: expected {expected}, found {shown(value)}") from error


def shown(value: Any) -> str:
    """A value as TOML has it, more or less."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def one_of(known: Iterable[str], found: Any, kind: str = "one of") -> str:
    """What was expected and what was found, with the nearest name."""
    known = list(known)
    expected = f"{kind} {', '.join(known)}".strip()
    return f"expected {expected}, found {shown(found)}{did_you_mean(found, known)}"


Each: TypeAlias = Literal["weights", "macs"] | float
MakeOptimizer: TypeAlias = Callable[[Any], Optimizer]
MakeScheduler: TypeAlias = Callable[[Optimizer], LRScheduler] | None
Constructors: TypeAlias = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Setting:
    """What a choice may depend on, beside its options."""

    model: nn.Module  # the dense network
    inputs: Any  # an example of its inputs
    seed: int = 0  # that of the run
    epochs: int = 1  # those of the training that the choice belongs to


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
        return count_macs(setting.model, setting.inputs)
    return 1.0 if each == "weights" else float(each)


def random(setting: Setting, seed: int | None = None) -> Criterion:
    """Uniform random scores, by the run's seed unless one is given: the control."""
    return criteria.random(setting.seed if seed is None else seed)


def channels(setting: Setting) -> Unit:
    """Neurons and filters with all that depends on them: the network is really cut."""
    return Coupled(find_channels(setting.model, setting.inputs))


def heads(setting: Setting) -> Unit:
    """Attention heads; the network is really cut."""
    return Coupled(find_heads(setting.model, setting.inputs))


def blocks(setting: Setting) -> Unit:
    """Residual blocks; the network is really cut."""
    return Coupled(find_residual_blocks(setting.model, setting.inputs))


def sgd(lr: float, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False) -> MakeOptimizer:
    """Stochastic gradient descent."""
    return partial(torch.optim.SGD, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


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


def rows() -> Iterator[tuple[str, str, str, str]]:
    """The registry as a table: axis, name, options, what it does."""
    for axis in AXES:
        for name, constructor in names_of(axis).items():
            options = ", ".join(map(_signature, msgspec.structs.fields(options_of(constructor))))
            yield axis, name, options, (inspect.getdoc(constructor) or "").partition("\n")[0]


def _signature(option: msgspec.structs.FieldInfo) -> str:
    known = not option.required and option.default is not None
    return f"{option.name} = {shown(option.default)}" if known else option.name
