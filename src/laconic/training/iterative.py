"""Iterative pruning: prune a little, fine-tune, and again (Han et al. 2015).

With `rewind`, the weights that stay go back to early values before each training: lottery tickets (Frankle & Carbin
2019). The callback `Snapshot` saves the weights of an early step k (Frankle et al. 2020). Two controls separate the
effects of a ticket's weights and mask: the same mask on fresh weights (`reinitialize_`), and a mask that keeps as many
weights in each layer at other places (`shuffled`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from laconic.core import distributed
from laconic.core.distributed import generator
from laconic.errors import UnsupportedError
from laconic.model.evidence import NO_EVIDENCE, Evidence
from laconic.model.modules import unwrap
from laconic.pruning.mask import Mask, apply_
from laconic.pruning.pruner import BY_MAGNITUDE, Pruner
from laconic.training.checkpoint import load_state, save_state
from laconic.training.gradual import prune_what_is_left_
from laconic.training.loop import Progress
from laconic.training.schedules import Schedule, check_fractions


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
