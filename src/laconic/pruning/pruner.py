"""Pruners: a choice of every axis, waiting for a model and an amount."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from laconic import ranks
from laconic.errors import MismatchError
from laconic.evidence import NOTHING, Evidence, Statistic
from laconic.pruning.budgets import Density, Price
from laconic.pruning.contests import Budget, Scope
from laconic.pruning.criteria import Criterion, magnitude
from laconic.pruning.mask import Mask, agreed
from laconic.pruning.select import EACH_WEIGHT, GLOBAL
from laconic.pruning.solvers import Cut, Pick, Solver
from laconic.pruning.units import Unit
from laconic.tensors import tensors, unwrap

Among: TypeAlias = Callable[[nn.Module], Mapping[str, Tensor]]
CUT = Cut()


@dataclass(frozen=True)
class Pruner:
    """A choice of criterion, unit, scope, budget and solver.

    Attributes:
        criterion: scores from weights and evidence.
        unit: what lives and dies together.
        scope: who competes with whom.
        budget: from the fraction that is to stay to a budget: `Density`, `Erk`, or any function such as
            ``lambda density: Count(2)``, which need not heed it.
        solver: what happens to the weights that stay.
        among: which tensors of a model compete; ``partial(tensors, exclude=["conv1"])`` spares some.
    """

    criterion: Criterion = magnitude
    unit: Unit = EACH_WEIGHT
    scope: Scope = GLOBAL
    budget: Callable[[float], Budget] = Density
    solver: Solver = CUT
    among: Among = tensors

    @property
    def needs(self) -> frozenset[Statistic]:
        """The statistics that criterion and solver look up: what to `observe`."""
        return self.criterion.needs | self.solver.needs

    def mask(self, model: nn.Module, amount: float, evidence: Evidence = NOTHING) -> Mask:
        """Which weights of `model` stay when the fraction `amount` is removed; the model is untouched."""
        return self.solve(model, amount, evidence)[1]

    @torch.no_grad()
    def solve(
        self, model: nn.Module, amount: float, evidence: Evidence = NOTHING
    ) -> tuple[dict[str, Tensor], Mask]:
        """The weights that pruning leaves, by name, and their mask; the model is untouched.

        Raises:
            ValueError: `amount` lies outside [0, 1].
            MismatchError: evidence is missing, or the axes do not fit the model or each other.
        """
        weights = self.unit.reach(self.among(model), unwrap(model))
        budget = self.budget(1 - amount)
        if isinstance(budget, Price) and not self.criterion.in_bits:
            name = getattr(self.criterion, "__name__", self.criterion)
            raise MismatchError(f"price: expected a criterion in bits, found {name}, which only ranks")
        return self.solver(weights, evidence, Pick(budget, self.scope, self.unit), self.criterion)


BY_MAGNITUDE = Pruner()


def prune_(
    model: nn.Module, amount: float, pruner: Pruner = BY_MAGNITUDE, evidence: Evidence = NOTHING
) -> Mask:
    """Remove the fraction `amount` of a model's weights, in place, and return the mask.

    Of processes that train together, rank 0 decides for all.

    Args:
        model: its linear, convolutional and embedding weights are pruned, all in one contest.
        amount: the fraction removed, in [0, 1], of the model's compressible weights.
        pruner: another criterion, unit, scope, budget, solver or choice of tensors.
        evidence: what `pruner.needs`, from `observe`.

    Returns:
        The mask. Pass it to `hold` to keep the weights at zero in further training.

    Raises:
        ValueError: `amount` lies outside [0, 1].
        MismatchError: a selector matches nothing, evidence is missing, or axes do not fit.
    """
    weights, mask = pruner.solve(model, amount, evidence)
    weights, mask = ranks.of_first(weights), agreed(mask)
    parameters = dict(unwrap(model).named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)
    return mask
