"""Iterative pruning: prune a little, fine-tune, and again (Han et al. 2015).

With `rewind`, the weights that stay go back to early values before each training: lottery tickets, see
`laconic.training.lottery`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from laconic.core import distributed
from laconic.model.evidence import NO_EVIDENCE, Evidence
from laconic.pruning.mask import Mask, apply_
from laconic.pruning.pruner import BY_MAGNITUDE, Pruner
from laconic.training.checkpoint import load_state, save_state
from laconic.training.gradual import prune_what_is_left_
from laconic.training.schedules import Schedule, check_fractions


@dataclass(frozen=True)
class Round:
    """A round that is done: its number (from 1), its target sparsity, and the mask it left."""

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
        rewind: a `state_dict` to which the model returns in each round, after the mask is decided and before
            training.
        folder: of this run's files, one for each finished round. A round that is there is loaded, not
            repeated.

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
