"""Methods: how pruning and training interleave.

A method is a few numbers; called with a model and its `Work`, it prunes and trains the model in place. What
it does there can be interrupted and repeated: training goes on from its checkpoint, rounds from their files,
and all that stands between is decided again, alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from laconic.evidence import MOVEMENT, Evidence
from laconic.pruning.mask import Mask
from laconic.pruning.pruner import Pruner, prune_
from laconic.quantization.grid import Grid
from laconic.training import gates, gradual, proximal, schedules, shorten, variational
from laconic.training.iterative import Round
from laconic.training.iterative import iterative as rounds_of
from laconic.training.regrow import AtRandom, ByGradient, DropAndGrow, Growth
from laconic.training.rules import Hold, Rule
from laconic.training.schedules import Curve, Schedule

OF_SCORES = frozenset({"criterion", "unit", "scope", "budget", "solver"})
CurveName = Literal["linear", "cubic", "cosine", "geometric", "one-shot"]


@dataclass(frozen=True)
class Work:
    """What a method works with.

    Attributes:
        pruner: the choice of the axes.
        amount: the fraction to remove; 0 where the budget does not ask.
        seed: of all that is random beside training.
        n_cases: of the training set.
        n_steps: of one training.
        early: the state of early weights, of which `Lottery` has need.
        folder: for the files of rounds.
        observe: gathers what the pruner needs.
        train: trains the model by the recipe, under rules; the label names the checkpoint.
    """

    pruner: Pruner
    amount: float
    seed: int
    n_cases: int
    n_steps: int
    early: Mapping[str, Any]
    folder: Path
    observe: Callable[[nn.Module], Evidence]
    train: Callable[[nn.Module, str, Sequence[Rule]], None]


class Method(ABC):
    """How pruning and training interleave.

    Attributes:
        axes: which axes it asks for.
        trains: it is nothing without training.
        ramps: the amount grows, so the budget must be a fraction.
        moves: connections move one by one, so they cannot stand in a pattern.
    """

    axes: ClassVar[frozenset[str]] = OF_SCORES
    trains: ClassVar[bool] = True
    ramps: ClassVar[bool] = False
    moves: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, model: nn.Module, work: Work) -> None:
        """Prune and train `model`, in place."""


@dataclass(frozen=True)
class OneShot(Method):
    """Prune once; then train, if the recipe says how, with what went held at zero."""

    trains: ClassVar[bool] = False

    def __call__(self, model: nn.Module, work: Work) -> None:
        """Prune, and train if there is a `[training]`."""
        mask = prune_(model, work.amount, work.pruner, work.observe(model))
        if work.n_steps:
            work.train(model, "training", [Hold(mask)])


@dataclass(frozen=True)
class Iterative(Method):
    """Prune a little and train, round by round (Han et al. 2015)."""

    rounds: int
    curve: CurveName = "geometric"
    ramps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _at_least_one(self.rounds, "rounds")

    def __call__(self, model: nn.Module, work: Work) -> None:
        """All rounds."""
        self._rounds(model, work, None)

    def _rounds(self, model: nn.Module, work: Work, rewind: Mapping[str, Any] | None) -> None:
        done: list[Round] = []

        def fine_tune(tuned: nn.Module, mask: Mask) -> None:
            work.train(tuned, f"training-{len(done) + 1}", [Hold(mask)])

        schedule = Schedule(work.amount, self.rounds, _curve(self.curve))
        for finished in rounds_of(
            model,
            schedule,
            fine_tune,
            work.pruner,
            observe=work.observe,
            rewind=rewind,
            folder=work.folder,
        ):
            done.append(finished)


@dataclass(frozen=True)
class Lottery(Iterative):
    """`iterative`, but weights return to those of dense step `rewind` (Frankle & Carbin 2019)."""

    rewind: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rewind < 0:
            raise ValueError(f"rewind: expected 0 or more, found {self.rewind}")

    def __call__(self, model: nn.Module, work: Work) -> None:
        """All rounds, each from the early weights."""
        self._rounds(model, work, work.early)


@dataclass(frozen=True)
class Gradual(Method):
    """Prune ever more during training (Zhu & Gupta 2017), until a fraction of its steps."""

    every: int = 100
    until: float = 0.75
    curve: CurveName = "cubic"
    initial: float = 0.0
    ramps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _at_least_one(self.every, "every")
        _fraction(self.until, "until")
        _fraction(self.initial, "initial")

    def __call__(self, model: nn.Module, work: Work) -> None:
        """Train under the rule."""
        end = max(1, round(self.until * work.n_steps))
        schedule = Schedule(work.amount, end, _curve(self.curve), self.initial)
        at_hand = work.pruner.needs <= gradual.AT_HAND and MOVEMENT in work.pruner.needs
        observe = work.observe if work.pruner.needs and not at_hand else None
        work.train(model, "training", [gradual.Gradual(schedule, self.every, work.pruner, observe)])


@dataclass(frozen=True)
class _DropAndGrow(Method):
    every: int = 100
    drop: float = 0.3
    until: float = 0.75
    moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _at_least_one(self.every, "every")
        _fraction(self.drop, "drop")
        _fraction(self.until, "until")

    def __call__(self, model: nn.Module, work: Work) -> None:
        """Prune, then train under the rule."""
        mask = prune_(model, work.amount, work.pruner, work.observe(model))
        end = round(self.until * work.n_steps)
        schedule = Schedule(0.0, end, schedules.cosine, self.drop)
        work.train(model, "training", [DropAndGrow(mask, schedule, self._growth(work.seed), self.every)])

    @abstractmethod
    def _growth(self, seed: int) -> Growth: ...


@dataclass(frozen=True)
class Set(_DropAndGrow):
    """Sparse from the start: drop the smallest, grow at random (SET; Mocanu et al. 2018)."""

    def _growth(self, seed: int) -> Growth:
        return AtRandom(seed)


@dataclass(frozen=True)
class Rigl(_DropAndGrow):
    """Sparse from the start: drop the smallest, grow by gradient (RigL; Evci et al. 2020)."""

    def _growth(self, seed: int) -> Growth:
        return ByGradient()


@dataclass(frozen=True)
class Gates(Method):
    """Train hard-concrete gates at a price a weight, in nats (L0; Louizos et al. 2018)."""

    price: float
    dropped: float = 0.2
    lr: float | None = None
    axes: ClassVar[frozenset[str]] = frozenset({"unit"})

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError(f"price: expected 0 or more, found {self.price}")
        if not 0 < self.dropped < 1:
            raise ValueError(f"dropped: expected a fraction within (0, 1), found {self.dropped}")

    def __call__(self, model: nn.Module, work: Work) -> None:
        """Train under the rule."""
        noise: dict[str, Any] = {"lr": self.lr, "seed": work.seed, "among": work.pruner.among}
        rule = gates.Gates(self.price, work.n_cases, work.pruner.unit, self.dropped, **noise)
        work.train(model, "training", [rule])


@dataclass(frozen=True)
class VariationalDropout(Method):
    """Train a variance with each weight; those that are noise go (Molchanov et al. 2017)."""

    kl_weight: float = 1.0
    warm_up: float = 0.5
    threshold: float = 3.0
    initial: float = -10.0
    lr: float | None = None
    axes: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _fraction(self.warm_up, "warm_up")
        _fraction(self.kl_weight, "kl_weight")

    def __call__(self, model: nn.Module, work: Work) -> None:
        """Train under the rule, the divergence's weight growing from 0 in the warm-up."""
        ramp = Schedule(self.kl_weight, round(self.warm_up * work.n_steps), schedules.linear)
        noise: dict[str, Any] = {"lr": self.lr, "seed": work.seed, "among": work.pruner.among}
        rule = variational.VariationalDropout(work.n_cases, ramp, self.threshold, self.initial, **noise)
        work.train(model, "training", [rule])


@dataclass(frozen=True)
class Proximal(Method):
    """Train under an L1 penalty, or group lasso, by exact proximal steps."""

    penalty: float
    axes: ClassVar[frozenset[str]] = frozenset({"unit"})

    def __post_init__(self) -> None:
        if self.penalty < 0:
            raise ValueError(f"penalty: expected 0 or more, found {self.penalty}")

    def __call__(self, model: nn.Module, work: Work) -> None:
        """Train under the rule."""
        rule = proximal.Proximal(self.penalty, work.pruner.unit, work.pruner.among)
        work.train(model, "training", [rule])


@dataclass(frozen=True)
class Shorten(Method):
    """Train under the code, at a price in bits of file for a bit of data; bits go where they buy none.

    The price falls from `falls` times as much until a fraction of the steps.
    """

    price: float
    falls: float = 10.0
    until: float = 0.5
    first: float = 0.3
    every: int = 100
    lr: float | None = 0.01
    axes: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        for of in ("price", "falls"):
            if (value := getattr(self, of)) <= 0:
                raise ValueError(f"{of}: expected above 0, found {value}")
        _fraction(self.until, "until")
        _at_least_one(self.every, "every")

    def __call__(self, model: nn.Module, work: Work) -> None:
        """Train under the rule, on grids that begin with a relative error of `first`."""
        end, first = round(self.until * work.n_steps), self.falls * self.price
        rule = shorten.Shorten(
            price=schedules.Schedule(self.price, end, schedules.exponential, first),
            n_cases=work.n_cases,
            first=Grid(self.first),
            every=self.every,
            lr=self.lr,
            among=work.pruner.among,
        )
        work.train(model, "training", [rule])


def _curve(name: CurveName) -> Curve:
    return getattr(schedules, name.replace("-", "_"))


def _at_least_one(value: int, of: str) -> None:
    if value < 1:
        raise ValueError(f"{of}: expected at least 1, found {value}")


def _fraction(value: float, of: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{of}: expected a fraction within [0, 1], found {value}")
