"""Pruners: a choice of every axis, waiting for a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from typing_extensions import override

from laconic.core import distributed
from laconic.errors import MismatchError, check_type
from laconic.model.evidence import NO_EVIDENCE, Evidence, Statistic, observe
from laconic.model.modules import unwrap
from laconic.model.selectors import compressible
from laconic.pruning.budgets import Budget, Fraction, Price
from laconic.pruning.criteria import Criterion, magnitude
from laconic.pruning.mask import Mask, broadcast_mask
from laconic.pruning.scopes import Global, Scope
from laconic.pruning.selection import ALL, Selection
from laconic.pruning.solvers import Cut, Solver
from laconic.pruning.units import EACH_WEIGHT, Unit

Parameters: TypeAlias = Callable[[nn.Module], Mapping[str, Tensor]]
CUT = Cut()
NONE_EMPTY = Global(may_empty=False)


@dataclass(frozen=True)
class Pruner(Selection):
    """A selection, a solver for the weights that stay, and the choice of tensors.

    Attributes:
        solver: what happens to the weights that stay.
        parameters: which tensors of a model compete; ``partial(compressible, exclude=["conv1"])`` spares some.
    """

    solver: Solver = CUT
    parameters: Parameters = compressible

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_type("solver", self.solver, Solver)

    @property
    def needs(self) -> frozenset[Statistic]:
        """The statistics that criterion and solver look up, to pass to `observe`."""
        return self.criterion.needs | self.solver.needs

    def at(self, amount: float | Budget) -> Pruner:
        """This pruner with another budget, or with its budget at another fraction removed.

        Raises:
            ValueError: the fraction lies outside [0, 1].
            MismatchError: the pruner's budget is not a fraction.
        """
        if isinstance(amount, Budget):
            return replace(self, budget=amount)
        if isinstance(amount, bool) or not isinstance(amount, Real):
            raise ValueError(f"amount: expected a fraction removed, within [0, 1], or a budget, found {amount!r}")
        if not 0 <= amount <= 1:
            percent = f"; {amount:g} % is {amount / 100:g}" if 1 < amount <= 100 else ""
            raise ValueError(f"amount: expected a fraction removed, within [0, 1], found {amount}{percent}")
        if not isinstance(self.budget, Fraction):
            raise MismatchError(f"amount: expected none, as {self.budget} decides how much stays, found {amount}")
        return replace(self, budget=self.budget.at(1 - float(amount)))

    def mask(self, model: nn.Module, evidence: Evidence = NO_EVIDENCE) -> Mask:
        """The mask of `model`'s weights that stay; the model is untouched."""
        with torch.no_grad():
            return self.solver(self.competing(model), evidence, self)[1]

    def prune_(self, model: nn.Module, evidence: Evidence = NO_EVIDENCE) -> Mask:
        """Put the weights that pruning leaves into `model`, and return the mask; rank 0 decides for all ranks.

        Raises:
            MismatchError: evidence is missing, or the axes do not fit the model or each other; `model` is untouched.
        """
        with torch.no_grad():
            weights, mask = self.solver(self.competing(model), evidence, self)
            weights, mask = distributed.broadcast(weights), broadcast_mask(mask)
            parameters = dict(unwrap(model).named_parameters())
            for name, weight in weights.items():
                parameters[name].copy_(weight)
        return mask

    def competing(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The tensors of `model` that the solver gets, by name; MismatchError if the axes do not fit."""
        if isinstance(self.budget, Price) and not self.criterion.in_bits:
            name = getattr(self.criterion, "__name__", self.criterion)
            raise MismatchError(f"price: expected a criterion in bits, found {name}, which only ranks")
        return self.unit.reach(self.parameters(model), unwrap(model))


BY_MAGNITUDE = Pruner()


def prune_(  # noqa: PLR0913 – a public call
    model: nn.Module,
    amount: float | Budget,
    criterion: Criterion = magnitude,
    *,
    scope: Scope = NONE_EMPTY,
    unit: Unit = EACH_WEIGHT,
    solver: Solver = CUT,
    data: Iterable[tuple[Any, Any]] | Evidence = NO_EVIDENCE,
    parameters: Parameters = compressible,
) -> Mask:
    """Remove weights of `model`, in place, and return the mask.

    Args:
        model: any module; by default its parameters of two or more dimensions are pruned, norms' excepted.
        amount: the fraction removed, in [0, 1]; or a budget that decides who stays, such as ``Count(2)``.
        criterion: what is lost if a weight goes: `laconic.pruning.criteria`.
        scope: who competes with whom: `laconic.pruning.scopes`. By default all weights of the model do, and no tensor
            may lose all of its.
        unit: what lives and dies together: `laconic.pruning.units`.
        solver: what happens to the weights that stay: `laconic.pruning.solvers`.
        data: batches, see `laconic.model.Objective`, from which the evidence that criterion and solver need is
            gathered, or an `Evidence` that `laconic.model.observe` returned.
        parameters: which tensors of a model compete; ``partial(compressible, exclude=["conv1"])`` spares some.

    Returns:
        The mask. Pass it to `hold` to keep the weights at zero in further training.

    Raises:
        ValueError: the fraction lies outside [0, 1].
        CollapseError: a tensor would lose all its weights, under the default scope.
        MismatchError: a selector matches nothing, data are missing, or axes do not fit.
    """
    pruner = Pruner(criterion, unit, scope, ALL, solver, parameters).at(amount)
    evidence = data if isinstance(data, Evidence) else observe(model, data, pruner.needs)
    return pruner.prune_(model, evidence)
