"""Selecting what stays, in one sentence.

`mask = unit.spread(winners(scope, budget, unit.pool(lost)))`, with `lost` from a criterion. Every method of pruning by
score is a choice of these four values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.errors import CollapseError, MismatchError, NonFiniteError, check_type
from laconic.pruning.budgets import Budget, Density
from laconic.pruning.contest import Contest, Kept
from laconic.pruning.criteria import Criterion, magnitude
from laconic.pruning.mask import Mask
from laconic.pruning.scopes import Global, Scope
from laconic.pruning.units import EACH_WEIGHT, Unit

GLOBAL, ALL = Global(), Density(1.0)


def select(
    lost: Mapping[str, Tensor],
    budget: Budget,
    scope: Scope = GLOBAL,
    unit: Unit = EACH_WEIGHT,
    like: Mapping[str, Tensor] | None = None,
) -> Mask:
    """Decide which weights stay.

    Args:
        lost: what is lost with each weight, by name (any shapes): a criterion's scores.
        budget: who wins each contest.
        scope: who competes with whom.
        unit: what lives and dies together.
        like: the tensors that the mask is for, where a criterion scored only some; by default those of `lost`.

    Returns:
        A mask of exactly the budget's counts. Ties go to the lower index and the earlier tensor.

    Raises:
        NonFiniteError: a score is NaN.
        CollapseError: a tensor would lose all its weights, and the scope does not allow that.
        MismatchError: scope or budget do not fit the tensors.
    """
    pooled = unit.pool(lost)
    n_members = {name: members.numel() for name, members in pooled.items()}
    costs = _Costs(unit, budget.each, lost if like is None else like, n_members)
    scores = unit.spare(costs.per_cost(pooled))
    for name, score in scores.items():
        if score.numel() and score.max().isnan():  # the maximum propagates NaN
            raise NonFiniteError(f"{name}: expected scores to rank, found NaN")

    def restored(names: Sequence[str], kept: Kept) -> dict[str, Tensor]:
        return {n: scope.restore(k, scores[n].shape) for n, k in zip(names, kept, strict=True)}

    groups = [list(scores)] if scope.together else [[name] for name in scores]
    contests = [
        Contest(
            {name: scope.table(scores[name].detach(), name) for name in names},
            costs.even(names),
            lambda kept, names=names: costs.of(restored(names, kept)),
            {name: costs.like[name].shape for name in names if name in costs.like},
        )
        for names in groups
    ]
    winners: dict[str, Tensor] = {}
    for names, kept in zip(groups, budget.keep(contests), strict=True):
        winners |= restored(names, kept)
    mask = Mask(unit.spread(winners, costs.like))
    if isinstance(scope, Global) and not scope.may_empty and mask.n_kept:
        for name, kept in mask.items():
            if kept.ndim > 1 and kept.numel() and not kept.any():
                why = f"expected some of its {kept.numel():,} weights to stay, found none: others' scores are higher"
                raise CollapseError(f"{name}: {why}; compare within tensors (scope=PerTensor()), or exclude some")
    return mask


@dataclass(frozen=True)
class Selection:
    """A choice of what goes.

    Attributes:
        criterion: scores from weights and evidence.
        unit: what lives and dies together.
        scope: who competes with whom.
        budget: who wins.
    """

    criterion: Criterion = magnitude
    unit: Unit = EACH_WEIGHT
    scope: Scope = GLOBAL
    budget: Budget = ALL

    def __post_init__(self) -> None:
        if not callable(self.criterion):
            raise MismatchError(f"criterion: expected one of laconic.pruning.criteria, found {self.criterion!r}")
        check_type("unit", self.unit, Unit)
        check_type("scope", self.scope, Scope)
        check_type("budget", self.budget, Budget)


@dataclass(frozen=True)
class _Costs:
    """What members cost, given what each weight costs."""

    unit: Unit
    each: float | Mapping[str, float]
    like: Mapping[str, Tensor]
    n_members: Mapping[str, int]

    def per_cost(self, pooled: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """From losses per weight, losses per unit of cost; infinite for members that cost nothing."""
        if self.each == 1:
            return pooled
        costs = self.unit.pool({n: torch.tensor(self._each(n)).expand(t.shape) for n, t in self.like.items()})
        return {name: torch.where(costs[name] > 0, lost / costs[name], torch.inf) for name, lost in pooled.items()}

    def even(self, names: Sequence[str]) -> bool:
        """Whether all members under these names cost the same."""
        names = [name for name in names if self.n_members[name]]
        if not all(name in self.like and self.unit.even(self.like[name].shape) for name in names):
            return False
        return len({self._each(n) * self.like[n].numel() / self.n_members[n] for n in names}) <= 1

    def of(self, kept: Mapping[str, Tensor]) -> float:
        """Total cost of the kept weights in the tensors that these members reach."""
        like = {n: self.like[n] for n in kept} if kept.keys() <= self.like.keys() else self.like
        nobody = self.unit.spread({name: torch.zeros_like(stays) for name, stays in kept.items()}, like)
        spread = self.unit.spread(kept, like)
        return sum(self._each(n) * int(mask.count_nonzero()) for n, mask in spread.items() if not nobody[n].all())

    def _each(self, name: str) -> float:
        return self.each.get(name, 0.0) if isinstance(self.each, Mapping) else self.each
