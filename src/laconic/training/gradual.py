"""Gradual pruning: more and more weights are removed during training, along a schedule (Zhu & Gupta 2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from laconic.errors import UnsupportedError
from laconic.model.evidence import GRADIENT, MOVEMENT, NO_EVIDENCE, Evidence
from laconic.model.modules import unwrap
from laconic.pruning.criteria import Criterion, declare
from laconic.pruning.mask import Mask, apply_
from laconic.pruning.pruner import BY_MAGNITUDE, Pruner
from laconic.training.drop_and_grow import gradient
from laconic.training.rules import Rule, State, StepContext, mask_of
from laconic.training.schedules import Schedule, check_fractions

AT_HAND = {GRADIENT, MOVEMENT}
RELATIVE_GAP, MIN_GAP = 1e-6, 1e-37  # differences that float32 resolves: relative, and absolute


@dataclass(frozen=True)
class Gradual(Rule):
    """Prune more and more during training.

    A criterion without evidence scores the weights after the optimizer's step. A criterion that needs gradients or
    movement (−Σ w·g over all steps so far) scores the weights before the step, to which the batch's gradients belong.
    `observe` gathers any other evidence, from the weights after the step.

    Attributes:
        schedule: sparsity by step, a fraction removed.
        every: steps between two prunings, until the schedule's end.
        pruner: criterion, scope, unit, budget and choice of tensors; the schedule sets the budget's fraction. With the
            scope ``NM(4)`` the pattern goes from 4:4 through 3:4 to 2:4.
        observe: gathers the criterion's evidence from the model, at each pruning; see `laconic.model.observe`.
    """

    schedule: Schedule
    every: int = 100
    pruner: Pruner = BY_MAGNITUDE
    observe: Callable[[nn.Module], Evidence] | None = None

    def __post_init__(self) -> None:
        check_fractions(self.schedule, "gradual")

    @property
    @override
    def needs_gradients(self) -> bool:
        return bool(self.pruner.needs) and self.observe is None

    @override
    def init(self, now: StepContext) -> State:
        if not self.needs_gradients:
            return {"mask": self._decided(now, None)}
        if lacking := self.pruner.needs - AT_HAND:
            kinds = ", ".join(sorted(statistic.name for statistic in lacking))
            raise UnsupportedError(f"gradual: the pruner needs {kinds}, more than gradients: pass observe=")
        weights = self._weights(now.model)
        mask = Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()})
        moving = weights if MOVEMENT in self.pruner.needs else {}
        return {"mask": mask, "movement": {name: torch.zeros_like(w) for name, w in moving.items()}}

    @override
    def before(self, state: State, now: StepContext) -> State:
        if not self.needs_gradients:
            return state
        weights = self._weights(now.model)
        gradients = {name: gradient(name, weight) for name, weight in weights.items()}
        moved = {n: total - weights[n] * gradients[n] for n, total in state["movement"].items()}
        state = {**state, "movement": moved}
        if not self._due(now.step):
            return state
        evidence = Evidence(1, {GRADIENT: gradients, MOVEMENT: moved})
        return {**state, "mask": self._decided(now, mask_of(state), evidence)}

    @override
    def update(self, state: State, now: StepContext) -> State:
        mask = mask_of(state)
        apply_(now.model, mask)
        if self._due(now.step) and not self.needs_gradients:
            mask = self._decided(now, mask)
        return {**state, "mask": mask}

    def _due(self, step: int) -> bool:
        return step <= self.schedule.end and (step % self.every == 0 or step == self.schedule.end)

    def _decided(self, now: StepContext, left: Mask | None, evidence: Evidence | None = None) -> Mask:
        if evidence is None:
            evidence = self.observe(now.model) if self.observe else NO_EVIDENCE
        return prune_what_is_left_(now.model, self.pruner.at(self.schedule(now.step)), evidence, left)

    def _weights(self, model: nn.Module) -> Mapping[str, Tensor]:
        return self.pruner.unit.reach(self.pruner.parameters(model), unwrap(model))


def prune_what_is_left_(model: nn.Module, pruner: Pruner, evidence: Evidence, left: Mask | None) -> Mask:
    """As `Pruner.prune_`; weights that `left` has removed come last in every contest."""
    if left is not None:
        pruner = replace(pruner, criterion=what_is_left(pruner.criterion, left))
    return pruner.prune_(model, evidence)


def what_is_left(criterion: Criterion, left: Mask) -> Criterion:
    """A criterion that scores removed weights just below all others, so that means over some of them make sense."""

    def scores(weights: Mapping[str, Tensor], evidence: Evidence = NO_EVIDENCE, /) -> dict[str, Tensor]:
        lost = criterion(weights, evidence)
        lowest = min([0.0, *(float(score.min()) for score in lost.values() if score.numel())])
        below = lowest - max(RELATIVE_GAP * abs(lowest), MIN_GAP)
        gone = {name: ~left.get(name, torch.tensor(True)) for name in lost}
        return {name: score.masked_fill(gone[name].to(score.device), below) for name, score in lost.items()}

    scores.__name__ = getattr(criterion, "__name__", "scores")  # for messages
    return declare(scores, criterion.needs, criterion.in_bits)
