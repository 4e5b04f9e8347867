"""Selecting what stays, in one sentence.

`mask = unit.spread(winners(scope, budget, unit.pool(lost)))`, with `lost` from a criterion. Every method of
pruning by score is a choice of these four values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from laconic.pruning.contests import Budget, Density, Model, Scope, winners
from laconic.pruning.criteria import Criterion, magnitude
from laconic.pruning.mask import Mask, apply_
from laconic.pruning.units import Unit, Weight
from laconic.tensors import Selector, tensors

GLOBAL, EACH_WEIGHT = Model(), Weight()


def select(
    lost: Mapping[str, Tensor],
    budget: Budget,
    scope: Scope = GLOBAL,
    unit: Unit = EACH_WEIGHT,
) -> Mask:
    """Decide which weights stay.

    Args:
        lost: what is lost with each weight, by name (any shapes): a criterion's scores.
        budget: how many win each contest.
        scope: who competes with whom.
        unit: what lives and dies together.

    Returns:
        A mask of exactly the budget's counts. Of equal scores the lower index stays.

    Raises:
        NonFiniteError: a score is NaN.
    """
    return Mask(unit.spread(winners(scope, budget, unit.pool(lost)), lost))


@dataclass(frozen=True)
class Pruner:
    """A choice of criterion, scope and unit, waiting for a model and an amount.

    Attributes:
        criterion: scores from weights.
        scope: who competes with whom.
        unit: what lives and dies together.
        include: what compresses, instead of the default layer types (see `laconic.tensors`).
        exclude: what does not compress after all.
    """

    criterion: Criterion = magnitude
    scope: Scope = GLOBAL
    unit: Unit = EACH_WEIGHT
    include: Iterable[Selector] | None = None
    exclude: Iterable[Selector] = ()

    @torch.no_grad()
    def mask(self, model: nn.Module, amount: float) -> Mask:
        """Which weights of `model` stay when the fraction `amount` is removed; the model is untouched."""
        weights = tensors(model, self.include, self.exclude)
        return select(self.criterion(weights), Density(1 - amount), self.scope, self.unit)


BY_MAGNITUDE = Pruner()


def prune_(model: nn.Module, amount: float, pruner: Pruner = BY_MAGNITUDE) -> Mask:
    """Remove the fraction `amount` of a model's weights, in place, and return the mask.

    Args:
        model: its linear, convolutional and embedding weights are pruned, all in one contest.
        amount: the fraction removed, in [0, 1], of the model's compressible weights.
        pruner: another criterion, scope, unit or choice of tensors.

    Returns:
        The mask. Pass it to `hold` to keep the weights at zero in further training.

    Raises:
        ValueError: `amount` lies outside [0, 1].
        MismatchError: a selector matches nothing.
    """
    mask = pruner.mask(model, amount)
    apply_(model, mask)
    return mask
