"""Methods: how pruning and training interleave.

A method is a function of its context and its options; it prunes and trains the context's model in place. What
it does can be interrupted and repeated: training goes on from its checkpoint, rounds from their files, and
all that stands between is decided again, alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from torch import nn

from laconic.model.evidence import MOVEMENT, Evidence
from laconic.pruning.mask import Mask
from laconic.pruning.pruner import Pruner
from laconic.quantization.grid import Grid
from laconic.search.under_code import CodeLengthRule
from laconic.training import schedules
from laconic.training.drop_and_grow import AtRandom, ByGradient, DropAndGrow, Growth
from laconic.training.iterative import AT_HAND, Gradual, Round, prune_iteratively_
from laconic.training.projections import Proximal
from laconic.training.rules import Hold, Rule
from laconic.training.schedules import Curve, Schedule
from laconic.training.stochastic import Gates, VariationalDropout

OF_SCORES = frozenset({"criterion", "unit", "scope", "budget", "solver"})
CurveName: TypeAlias = Literal["linear", "cubic", "cosine", "geometric", "one-shot"]
AtLeastOne: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
NonNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
UnitInterval: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Inside: TypeAlias = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
M = TypeVar("M", bound=Callable[..., None])


@dataclass(frozen=True)
class MethodContext:
    """What a method works with; it prunes and trains the model in place."""

    model: nn.Module
    pruner: Pruner  # at the recipe's amount
    amount: float  # the fraction to remove; 0 where the budget does not ask
    seed: int  # of all that is random beside training
    n_examples: int  # length of the training set
    n_steps: int  # of one training
    early: Mapping[str, Any]  # the state of early weights, for `lottery`
    folder: Path  # for the files of rounds
    observe: Callable[[nn.Module], Evidence]  # gathers what the pruner needs
    train: Callable[[str, Sequence[Rule]], None]  # by the recipe, under rules; the label names the checkpoint

    def until(self, fraction: float) -> int:
        """The step at a fraction of the training."""
        return round(fraction * self.n_steps)

    def noise(self, lr: float | None) -> dict[str, Any]:
        """What rules with random weights share."""
        return {"lr": lr, "seed": self.seed, "parameters": self.pruner.parameters}

    def prune_(self) -> Mask:
        """Prune the model by the choice of the axes."""
        return self.pruner.prune_(self.model, self.observe(self.model))


@dataclass(frozen=True)
class Traits:
    """What a recipe must know of a method."""

    axes: frozenset[str] = OF_SCORES  # that it asks for
    trains: bool = True  # whether it needs training
    ramps: bool = False  # whether the amount grows, so that the budget must be a fraction
    moves: bool = False  # whether connections move one by one, so that they cannot stand in a pattern


def method(**traits: Any) -> Callable[[M], M]:
    """Declare the traits of a method."""

    def declare(function: M) -> M:
        function.traits = Traits(**traits)  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return declare


@method(trains=False)
def one_shot(context: MethodContext) -> None:
    """Prune once; then train, if the recipe says how, with what went held at zero."""
    mask = context.prune_()
    if context.n_steps:
        context.train("training", [Hold(mask)])


@method(ramps=True)
def iterative(context: MethodContext, rounds: AtLeastOne, curve: CurveName = "geometric") -> None:
    """Prune a little and train, round by round (Han et al. 2015)."""
    _in_rounds(context, rounds, curve, None)


@method(ramps=True)
def lottery(context: MethodContext, rounds: AtLeastOne, curve: CurveName = "geometric", rewind: Count = 0) -> None:
    """`iterative`, but weights return to those of dense step `rewind` (Frankle & Carbin 2019)."""
    del rewind  # the context has the weights of that step
    _in_rounds(context, rounds, curve, context.early)


def _in_rounds(context: MethodContext, rounds: int, curve: CurveName, rewind: Mapping[str, Any] | None) -> None:
    done: list[Round] = []

    def fine_tune(_: nn.Module, mask: Mask) -> None:
        context.train(f"training-{len(done) + 1}", [Hold(mask)])

    schedule = Schedule(context.amount, rounds, _curve(curve))
    options: dict[str, Any] = {"observe": context.observe, "rewind": rewind, "folder": context.folder}
    for one in prune_iteratively_(context.model, schedule, fine_tune, context.pruner, **options):
        done.append(one)


@method(ramps=True)
def gradual(
    context: MethodContext,
    every: AtLeastOne = 100,
    until: UnitInterval = 0.75,
    curve: CurveName = "cubic",
    initial: UnitInterval = 0.0,
) -> None:
    """Prune ever more during training (Zhu & Gupta 2017), until a fraction of its steps."""
    schedule = Schedule(context.amount, max(1, context.until(until)), _curve(curve), initial)
    needs = context.pruner.needs
    at_hand = needs <= AT_HAND and MOVEMENT in needs
    observe = context.observe if needs and not at_hand else None
    context.train("training", [Gradual(schedule, every, context.pruner, observe)])


@method(moves=True)
def set_(context: MethodContext, every: AtLeastOne = 100, drop: UnitInterval = 0.3, until: UnitInterval = 0.75) -> None:
    """Sparse from the start: drop the smallest, grow at random (SET; Mocanu et al. 2018)."""
    _move(context, every, drop, until, AtRandom(context.seed))


@method(moves=True)
def rigl(context: MethodContext, every: AtLeastOne = 100, drop: UnitInterval = 0.3, until: UnitInterval = 0.75) -> None:
    """Sparse from the start: drop the smallest, grow by gradient (RigL; Evci et al. 2020)."""
    _move(context, every, drop, until, ByGradient())


def _move(context: MethodContext, every: int, drop: float, until: float, growth: Growth) -> None:
    schedule = Schedule(0.0, context.until(until), schedules.cosine, drop)
    context.train("training", [DropAndGrow(context.prune_(), schedule, growth, every)])


@method(axes=frozenset({"unit"}))
def gates(context: MethodContext, penalty: NonNegative, dropped: Inside = 0.2, lr: float | None = None) -> None:
    """Train hard-concrete gates at a penalty a weight, in nats (L0; Louizos et al. 2018)."""
    rule = Gates(penalty, context.n_examples, context.pruner.unit, dropped, **context.noise(lr))
    context.train("training", [rule])


@method(axes=frozenset())
def variational_dropout(
    context: MethodContext,
    kl_weight: UnitInterval = 1.0,
    warm_up: UnitInterval = 0.5,
    threshold: float = 3.0,
    initial: float = -10.0,
    lr: float | None = None,
) -> None:
    """Train a variance with each weight; those that are noise go (Molchanov et al. 2017)."""
    ramp = Schedule(kl_weight, context.until(warm_up), schedules.linear)
    rule = VariationalDropout(context.n_examples, ramp, threshold, initial, **context.noise(lr))
    context.train("training", [rule])


@method(axes=frozenset({"unit"}))
def proximal(context: MethodContext, penalty: NonNegative) -> None:
    """Train under an L1 penalty, or group lasso, by exact proximal steps."""
    context.train("training", [Proximal(penalty, context.pruner.unit, context.pruner.parameters)])


@method(axes=frozenset())
def code_length(  # noqa: PLR0913 – options of recipes
    context: MethodContext,
    price: Positive,
    falls: Positive = 10.0,
    until: UnitInterval = 0.5,
    first: Inside = 0.3,
    every: AtLeastOne = 100,
    lr: float | None = 0.01,
) -> None:
    """Train under the code, at a price in bits of file for a bit of data; bits go where they buy none.

    The price falls from `falls` times as much until a fraction of the steps.
    """
    rule = CodeLengthRule(
        price=Schedule(price, context.until(until), schedules.exponential, falls * price),
        n_examples=context.n_examples,
        first=Grid(first),
        every=every,
        lr=lr,
        parameters=context.pruner.parameters,
    )
    context.train("training", [rule])


METHODS = (one_shot, iterative, lottery, gradual, set_, rigl, gates, variational_dropout, proximal, code_length)


def _curve(name: CurveName) -> Curve:
    return getattr(schedules, name.replace("-", "_"))
