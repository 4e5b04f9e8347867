"""Solvers: choose what goes, and let what stays make up for it.

A solver is a function from weights, evidence, a pick (budget, scope and unit, waiting for scores) and a
criterion to new weights and their mask. Cutting is the one that makes up for nothing. The others minimise
each layer's output error tr (W − Ŵ) H (W − Ŵ)ᵀ, with H the damped Gram matrix of its inputs.

    laconic.Pruner(laconic.output_error, solver=laconic.least_squares)

Statistics of batch norms belong to the weights they were measured with: `reestimate_batch_norm_` afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from laconic.errors import UnsupportedError
from laconic.evidence import GRAM, Evidence, Statistic, call, damped
from laconic.pruning.budgets import Count
from laconic.pruning.contests import Budget, Scope
from laconic.pruning.criteria import Criterion, Weights
from laconic.pruning.mask import Mask, masked
from laconic.pruning.select import select
from laconic.pruning.units import Unit


@dataclass(frozen=True)
class Pick:
    """Budget, scope and unit, waiting for scores: who would stay."""

    budget: Budget
    scope: Scope
    unit: Unit

    def __call__(self, lost: Weights, like: Weights | None = None) -> Mask:
        """The mask; see `select`."""
        return select(lost, self.budget, self.scope, self.unit, like)


@runtime_checkable
class Solver(Protocol):
    """Chooses what goes, and repairs what stays.

    Attributes:
        needs: the statistics that it looks up, beside the criterion's.
    """

    @property
    def needs(self) -> frozenset[Statistic]:
        """Statistics."""
        ...

    def __call__(
        self, weights: Weights, evidence: Evidence, pick: Pick, criterion: Criterion
    ) -> tuple[dict[str, Tensor], Mask]:
        """New weights, zero where the mask removes them, and the mask."""
        ...


@dataclass(frozen=True)
class Cut:
    """What the criterion picks goes; the rest stays as it is."""

    needs: frozenset[Statistic] = field(default=frozenset(), init=False, repr=False)

    def __call__(
        self, weights: Weights, evidence: Evidence, pick: Pick, criterion: Criterion
    ) -> tuple[dict[str, Tensor], Mask]:
        """Masked weights."""
        mask = pick(criterion(weights, evidence), weights)
        return {name: masked(weights[name].detach(), mask[name]) for name in mask}, mask


@dataclass(frozen=True)
class LeastSquares:
    """What the criterion picks goes; each row's other weights are the best that reproduce the layer's output.

    With S what stays of a row w: ŵ_S = [H_SS]⁻¹ H_S· w. Tensors without a Gram matrix are only cut.

    Attributes:
        damping: fraction of H's mean diagonal added to it.
    """

    damping: float = 0.01
    needs: frozenset[Statistic] = field(default=frozenset({GRAM}), init=False, repr=False)

    def __call__(
        self, weights: Weights, evidence: Evidence, pick: Pick, criterion: Criterion
    ) -> tuple[dict[str, Tensor], Mask]:
        """Masked weights, repaired."""
        mask = pick(criterion(weights, evidence), weights)
        solved = {name: masked(weights[name].detach(), mask[name]) for name in mask}
        for name in mask.keys() & evidence.found.get(GRAM, {}).keys():
            if not mask[name].all():
                grams = damped(evidence.of(GRAM, name), self.damping)
                solved[name] = _fitted(weights[name].detach(), mask[name], grams)
        return solved, mask


def _fitted(
    weight: Float[Tensor, " *shape"], kept: Bool[Tensor, " *shape"], grams: Float[Tensor, "groups d d"]
) -> Float[Tensor, " *shape"]:
    groups, d, _ = grams.shape
    rows = weight.double().reshape(groups, -1, d)
    fitted = torch.zeros_like(rows)
    for group, gram in enumerate(grams.to(weight.device)):
        # Rows that keep the same inputs share a system: of pruned channels, all do.
        patterns, which = kept.reshape(groups, -1, d)[group].unique(dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            stays, alike = pattern.nonzero().squeeze(1), (which == number).nonzero().squeeze(1)
            targets = gram[stays] @ rows[group, alike].T
            factor = torch.linalg.cholesky(gram[stays[:, None], stays])
            fitted[group, alike[:, None], stays] = torch.cholesky_solve(targets, factor).T
    return masked(fitted.reshape(weight.shape).to(weight.dtype), kept)


@dataclass(frozen=True)
class SparseGpt:
    """Go through a layer's inputs once; later ones make up for what goes (Frantar & Alistarh 2023).

    With U the upper Cholesky factor of H⁻¹, the weights of lowest w²/U_jj² go, as many in each stretch of
    columns as the criterion would take of the whole tensor: the criterion decides the layers' rates alone. A
    layer of d inputs takes d³.

    Attributes:
        columns: width of the stretches within which weights compete (128 in the paper; for N:M sparsity, m);
            at least one input channel of a convolution.
        damping: fraction of H's mean diagonal added to it.
    """

    columns: int = 128
    damping: float = 0.01
    needs: frozenset[Statistic] = field(default=frozenset({GRAM}), init=False, repr=False)

    def __call__(
        self, weights: Weights, evidence: Evidence, pick: Pick, criterion: Criterion
    ) -> tuple[dict[str, Tensor], Mask]:
        """Repaired weights and their mask.

        Raises:
            UnsupportedError: the unit's members do not lie each in one tensor.
            MismatchError: a tensor has no Gram matrix.
        """
        rates = pick(criterion(weights, evidence), weights)
        if rates.keys() - pick.unit.pool(weights).keys():
            raise UnsupportedError(
                f"SparseGPT: expected units within a tensor, found {type(pick.unit).__name__}"
            )
        solved = {
            name: self._solve(name, weights[name].detach(), rates[name], evidence, pick) for name in rates
        }
        return {n: weight for n, (weight, _) in solved.items()}, Mask(
            {n: kept for n, (_, kept) in solved.items()}
        )

    def _solve(
        self, name: str, weight: Tensor, rates: Tensor, evidence: Evidence, pick: Pick
    ) -> tuple[Tensor, Tensor]:
        grams = damped(evidence.of(GRAM, name), self.damping).to(weight.device)
        parts = zip(weight.chunk(len(grams)), rates.chunk(len(grams)), grams, strict=True)
        solved = [self._sweep(name, w, float(r.double().mean()), gram, pick) for w, r, gram in parts]
        kept = torch.cat([kept for _, kept in solved])
        return masked(torch.cat([w for w, _ in solved]).to(weight.dtype), kept), kept

    def _sweep(
        self, name: str, weight: Tensor, density: float, gram: Float[Tensor, "d d"], pick: Pick
    ) -> tuple[Tensor, Tensor]:
        """One group of a layer."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        upper = torch.linalg.cholesky(inverse, upper=True)
        matrix, kept = weight.double().flatten(1), torch.ones_like(weight, dtype=torch.bool)
        per_input = weight[0, 0].numel()
        together = pick.scope.length * max(1, self.columns // (per_input * pick.scope.length))
        seen = taken = 0
        for inputs in torch.arange(weight.shape[1]).split(together):
            first, end = int(inputs[0]), int(inputs[-1]) + 1
            span = slice(first * per_input, end * per_input)
            part = matrix[:, span].clone()
            scores = (part / upper.diagonal()[span]).square().reshape(len(part), -1, *weight.shape[2:])
            n = pick.scope.table(pick.unit.pool({name: scores})[name], name).shape[1]
            # Counts are rounded along the way, so that they add up to the whole tensor's.
            seen, count = seen + n, round(density * (seen + n)) - taken
            taken += count
            chosen = replace(pick, budget=Count(count))({name: scores})[name]
            kept[:, first:end] = chosen
            stays, errors = chosen.flatten(1), torch.zeros_like(part)
            triangle = upper[span, span]
            for j in range(part.shape[1]):
                errors[:, j] = part[:, j] * ~stays[:, j] / triangle[j, j]
                part[:, j:] -= errors[:, j : j + 1] * triangle[j, j:]
            matrix[:, span] = part
            matrix[:, span.stop :] -= errors @ upper[span, span.stop :]
        return matrix.reshape(weight.shape), kept


@torch.no_grad()
def reestimate_batch_norm_(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> None:
    """Measure the means and variances of `model`'s batch norms anew, as averages over `batches`, in place.

    All other layers run as in evaluation. A model without batch norms is left as it is.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
        norm.train()
    try:
        device = next(model.parameters()).device
        for inputs, _ in batches if norms else ():
            call(model, inputs.to(device) if isinstance(inputs, Tensor) else inputs)
    finally:
        for norm in norms:
            norm.momentum = momenta[norm]
        for module, training in modes.items():
            module.training = training
