"""Iterative pruning: prune a little, fine-tune, and again (Han et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from laconic.pruning.mask import Mask
from laconic.pruning.pruner import BY_MAGNITUDE, Pruner, prune_
from laconic.training.schedules import Schedule


@dataclass(frozen=True)
class Round:
    """A round that is done: its number (from 1), its target sparsity, and the mask it left."""

    number: int
    sparsity: float
    mask: Mask


def iterative(
    model: nn.Module,
    schedule: Schedule,
    fine_tune: Callable[[nn.Module, Mask], object],
    pruner: Pruner = BY_MAGNITUDE,
) -> Iterator[Round]:
    """Prune `model` in place, round by round, fine-tuning after each; yield every round.

    Args:
        model: the network.
        schedule: sparsity by round; its `end` is the number of rounds.
        fine_tune: trains the model, holding the mask.
        pruner: criterion, scope, unit and choice of tensors.
    """
    for number in range(schedule.begin + 1, schedule.end + 1):
        mask = prune_(model, schedule(number), pruner)
        fine_tune(model, mask)
        yield Round(number, schedule(number), mask)
