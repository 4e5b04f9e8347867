"""Drop and grow: sparse all through training, while the connections move.

Every so often each layer drops the fraction f(t) of its weights that are smallest and grows as many among those it does
not have: at random (SET: Mocanu et al. 2018), or where the loss's gradient is largest (RigL: Evci et al. 2020,
algorithm 1, with f(t) = (α/2)(1 + cos(πt/T_end))). Absent weights are zeros that have gradients: the backward pass is
dense.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from laconic.core.distributed import generator
from laconic.errors import MismatchError
from laconic.pruning.contest import largest
from laconic.pruning.mask import Mask, broadcast_mask
from laconic.training.rules import Hold, State, StepContext, mask_of
from laconic.training.schedules import Schedule, check_fractions


class Growth(ABC):
    """Where connections grow: named scores, of which a layer's highest win."""

    needs_gradients: ClassVar[bool] = False  # whether it reads the parameters' gradients

    @abstractmethod
    def __call__(self, parameters: Mapping[str, nn.Parameter], step: int) -> Mapping[str, Tensor]:
        """A score for every weight of `parameters`, in their shapes."""


@dataclass(frozen=True)
class AtRandom(Growth):
    """Anywhere, with the same chance (SET); seed and step decide."""

    seed: int = 0

    @override
    def __call__(self, parameters: Mapping[str, nn.Parameter], step: int) -> Mapping[str, Tensor]:
        draw = generator(self.seed, step)
        return {name: torch.rand(p.shape, generator=draw).to(p.device) for name, p in parameters.items()}


@dataclass(frozen=True)
class ByGradient(Growth):
    """Where the loss's gradient at this step is largest (RigL)."""

    needs_gradients: ClassVar[bool] = True

    @override
    def __call__(self, parameters: Mapping[str, nn.Parameter], step: int) -> Mapping[str, Tensor]:
        return {name: gradient(name, parameter).abs() for name, parameter in parameters.items()}


def gradient(name: str, parameter: Tensor) -> Tensor:
    """A parameter's gradient; MismatchError if it has none."""
    if parameter.grad is None:
        raise MismatchError(f"{name}: expected a gradient before the step, found none")
    return parameter.grad


@dataclass(frozen=True)
class DropAndGrow(Hold):
    """Keep each tensor's count of weights, and move the connections.

    A change happens just before an optimizer's step. Dropped and grown weights, also one that is both, start from zero,
    as does every state of the optimizer that has the parameter's shape. The step that follows moves all kept weights;
    the paper leaves that step out.

    Attributes:
        mask: where training starts: often `prune_`'s, by the criterion `random`, under a budget such as `Erk`.
        schedule: the fraction of each tensor's weights that moves, by step; changes end with it. The paper's is
            ``Schedule(0, end, cosine, initial=0.3)``, with `end` at three quarters of the steps.
        growth: where connections grow: `ByGradient` (RigL) or `AtRandom` (SET).
        every: steps between two changes.
    """

    schedule: Schedule
    growth: Growth = ByGradient()
    every: int = 100

    def __post_init__(self) -> None:
        check_fractions(self.schedule, "drop and grow")

    @property
    @override
    def needs_gradients(self) -> bool:
        return self.growth.needs_gradients

    @override
    def before(self, state: State, now: StepContext) -> State:
        if now.step % self.every or now.step >= self.schedule.end:
            return state
        old = mask_of(state)
        parameters = {name: p for name, (p, _) in zip(old, old.of(now.model), strict=True)}
        scores = self.growth(parameters, now.step)
        fraction = self.schedule(now.step)
        moved = {n: _moved(p, old[n].to(p.device), scores[n], fraction) for n, p in parameters.items()}
        left = broadcast_mask(Mask({name: left for name, (left, _) in moved.items()}))
        new = broadcast_mask(Mask({name: new for name, (_, new) in moved.items()}))
        for name, parameter in parameters.items():
            changed = (old[name].to(parameter.device) | new[name]) & ~left[name]
            parameter.masked_fill_(changed, 0)
            reset_(now.optimizer, parameter, changed)
        return {"mask": new}


def _moved(weight: Tensor, kept: Tensor, score: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """What is left after the drop, and the new mask."""
    n_kept = int(kept.count_nonzero())
    n_moved = min(round(fraction * n_kept), kept.numel() - n_kept)  # where all is kept, nothing can move

    def top(score: Tensor, k: int) -> Tensor:
        return largest({"": score.reshape(1, -1)}, k)[0].view_as(score)

    left = top(weight.abs().masked_fill(~kept, -1), n_kept - n_moved)
    return left, left | top(score.masked_fill(left, -1), n_moved)  # what was just dropped competes again: the paper's


def reset_(optimizer: Optimizer, parameter: nn.Parameter, where: Tensor) -> None:
    """Zero the optimizer's state of `parameter` at `where`, in every tensor of the parameter's shape."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where, 0)
