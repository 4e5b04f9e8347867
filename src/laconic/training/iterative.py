"""Pruning on a schedule: during training, step by step, or between trainings, round by round.

Gradual pruning (Zhu & Gupta 2017) is a rule of the training loop. Iterative pruning (Han et al. 2015) prunes a little,
fine-tunes, and again. With `rewind`, the weights that stay go back to early values before each training: lottery
tickets (Frankle & Carbin 2019). The callback `Snapshot` saves the weights of an early step k (Frankle et al. 2020). Two
controls separate the effects of a ticket's weights and mask: the same mask on fresh weights (`reinitialize_`), and a
mask that keeps as many weights in each layer at other places (`shuffled`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from laconic.core import distributed
from laconic.core.distributed import generator
from laconic.errors import UnsupportedError
from laconic.model.evidence import GRADIENT, MOVEMENT, NO_EVIDENCE, Evidence
from laconic.model.modules import unwrap
from laconic.pruning.criteria import Criterion, declare
from laconic.pruning.mask import Mask, apply_
from laconic.pruning.pruner import BY_MAGNITUDE, Pruner
from laconic.training.checkpoint import load_state, save_state
from laconic.training.drop_and_grow import gradient
from laconic.training.loop import Progress
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


@dataclass(frozen=True)
class Round:
    """A finished round: its number (from 1), its target sparsity, and the mask it left."""

    number: int
    sparsity: float
    mask: Mask


def prune_iteratively_(  # noqa: PLR0913 – a public call
    model: nn.Module,
    schedule: Schedule,
    fine_tune: Callable[[nn.Module, Mask], object],
    pruner: Pruner = BY_MAGNITUDE,
    *,
    observe: Callable[[nn.Module], Evidence] | None = None,
    rewind: Mapping[str, Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Iterator[Round]:
    """Prune `model` in place, round by round, fine-tuning after each; yield every round.

    Args:
        model: the network.
        schedule: sparsity by round; its `end` is the number of rounds.
        fine_tune: trains the model, holding the mask.
        pruner: criterion, scope, unit, budget and choice of tensors.
        observe: gathers the criterion's evidence, at the beginning of each round; see `laconic.model.observe`.
        rewind: a `state_dict` to which the model returns in each round, after the mask is decided and before training.
        folder: keeps a file of each finished round; a round that is there is loaded, not repeated.

    Raises:
        ValueError: the schedule is not one of fractions.
        FormatError: a round's file is damaged.
    """
    check_fractions(schedule, "iterative")
    mask = None
    for number in range(schedule.begin + 1, schedule.end + 1):
        path = Path(folder) / f"round-{number}.safetensors" if folder is not None else None
        if path is not None and path.exists():
            saved = load_state(path)
            model.load_state_dict(saved["model"])
            mask = Mask(saved["mask"])
        else:
            evidence = observe(model) if observe else NO_EVIDENCE
            mask = prune_what_is_left_(model, pruner.at(schedule(number)), evidence, mask)
            if rewind is not None:
                model.load_state_dict(rewind)
                apply_(model, mask)
            fine_tune(model, mask)
            if path is not None and distributed.is_first():
                path.parent.mkdir(parents=True, exist_ok=True)
                save_state(path, {"model": model.state_dict(), "mask": mask})
        yield Round(number, schedule(number), mask)


class Snapshot:
    """A callback of `train` that writes the model's state after step `step` to a file.

    A run that resumes beyond that step reads it from the file. Steps count from 1 (ValueError below). For the weights
    before the first step, copy `state_dict()`.
    """

    def __init__(self, path: str | os.PathLike[str], step: int) -> None:
        if step < 1:
            raise ValueError(f"snapshot: expected a step from 1, found {step}")
        self.path, self.step = Path(path), step

    def __call__(self, progress: Progress) -> None:
        """Write the state, on rank 0, if this is the step."""
        if progress.step == self.step and distributed.is_first():
            save_state(self.path, progress.model.state_dict())

    @property
    def state(self) -> dict[str, Any]:
        """The state that was written; FileNotFoundError before the step, FormatError if the file is damaged."""
        return load_state(self.path)


def shuffled(mask: Mask, seed: int = 0) -> Mask:
    """The mask with each tensor's places permuted: each keeps exactly as many weights as before."""
    draw = generator(seed, 0)
    orders = {name: torch.randperm(kept.numel(), generator=draw) for name, kept in mask.items()}
    return Mask({n: kept.flatten()[orders[n].to(kept.device)].view_as(kept) for n, kept in mask.items()})


def reinitialize_(model: nn.Module, seed: int = 0) -> None:
    """Redraw all of a model's weights in place, by its layers' own `reset_parameters`.

    Buffers that layers reset, such as running means, are reset as well. The global random state is restored.

    Raises:
        UnsupportedError: a module has parameters and no `reset_parameters`; the model is untouched.
    """
    resets: list[Callable[[], None]] = []
    for name, module in unwrap(model).named_modules():
        reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        if reset is not None:
            resets.append(reset)
        elif next(module.parameters(recurse=False), None) is not None:
            raise UnsupportedError(f"{name}: {type(module).__name__} has parameters and no reset_parameters")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for reset in resets:
            reset()
