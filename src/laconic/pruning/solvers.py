"""Solvers: choose what goes, and let what stays make up for it.

A solver is a function from weights, evidence and a selection to new weights and their mask. `Cut` repairs nothing. The
others minimise each layer's output error tr (W − Ŵ) H (W − Ŵ)ᵀ, with H the damped Gram matrix of its inputs:

    laconic.prune_(model, 0.5, criteria.output_error, solver=solvers.LeastSquares(), data=batches)

Call `reestimate_batch_norm_` afterwards: statistics of batch norms belong to the weights they were measured with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from laconic.errors import UnsupportedError
from laconic.model.evidence import GRAM, Evidence, Statistic
from laconic.pruning.budgets import Count
from laconic.pruning.criteria import Weights
from laconic.pruning.mask import Mask, masked
from laconic.pruning.selection import Selection, select


class Solver(ABC):
    """Chooses what goes, and lets what stays make up for it.

    Attributes:
        needs: the statistics that it looks up, in addition to the criterion's.
    """

    needs: ClassVar[frozenset[Statistic]] = frozenset()

    @abstractmethod
    def __call__(self, weights: Weights, evidence: Evidence, selection: Selection) -> tuple[dict[str, Tensor], Mask]:
        """New weights, zero where the mask removes them, and the mask.

        Raises:
            MismatchError: evidence is missing.
            UnsupportedError: the selection does not fit the solver.
        """


@dataclass(frozen=True)
class Cut(Solver):
    """Remove what the criterion picks, and leave the rest as it is."""

    @override
    def __call__(self, weights: Weights, evidence: Evidence, selection: Selection) -> tuple[dict[str, Tensor], Mask]:
        lost = selection.criterion(weights, evidence)
        mask = select(lost, selection.budget, selection.scope, selection.unit, like=weights)
        return {name: masked(weights[name].detach(), mask[name]) for name in mask}, mask


@dataclass(frozen=True)
class LeastSquares(Solver):
    """Remove what the criterion picks; refit each row's other weights to reproduce the layer's output.

    With S the positions that stay in a row w: ŵ_S = [H_SS]⁻¹ H_S· w. Tensors without a Gram matrix are only cut.
    `damping` is the fraction of H's mean diagonal added to it.
    """

    damping: float = 0.01
    needs: ClassVar[frozenset[Statistic]] = frozenset({GRAM})

    @override
    def __call__(self, weights: Weights, evidence: Evidence, selection: Selection) -> tuple[dict[str, Tensor], Mask]:
        solved, mask = Cut()(weights, evidence, selection)
        for name in mask.keys() & evidence.found.get(GRAM, {}).keys():
            if not mask[name].all():
                grams = evidence.damped(name, self.damping)
                weight = weights[name].detach()
                rows, kept = evidence.rows(name, weight.double()), evidence.rows(name, mask[name])
                fitted = evidence.form(name).weight(_fitted(rows, kept, grams.to(weight.device)), weight.shape)
                solved[name] = masked(fitted.to(weight.dtype), mask[name])
        return solved, mask


def _fitted(
    rows: Float[Tensor, "groups rows d"], kept: Bool[Tensor, "groups rows d"], grams: Float[Tensor, "groups d d"]
) -> Float[Tensor, "groups rows d"]:
    fitted = torch.zeros_like(rows)
    for group, gram in enumerate(grams):
        # Rows that keep the same inputs share a system: when channels are pruned, all rows do.
        patterns, which = kept[group].unique(dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            stays, alike = pattern.nonzero().squeeze(1), (which == number).nonzero().squeeze(1)
            targets = gram[stays] @ rows[group, alike].T
            factor = torch.linalg.cholesky(gram[stays[:, None], stays])
            fitted[group, alike[:, None], stays] = torch.cholesky_solve(targets, factor).T
    return fitted


@dataclass(frozen=True)
class SparseGPT(Solver):
    """Go through a layer's inputs once; later ones make up for what goes (Frantar & Alistarh 2023).

    The criterion decides only each tensor's rate. With U the upper Cholesky factor of H⁻¹, the weights of lowest
    w²/U_jj² go, at that rate in each stretch of columns. A layer of d inputs takes d³ operations.

    Attributes:
        columns: width of the stretches within which weights compete (128 in the paper; for N:M sparsity, m); at least
            one input channel of a convolution.
        damping: fraction of H's mean diagonal added to it.
    """

    columns: int = 128
    damping: float = 0.01
    needs: ClassVar[frozenset[Statistic]] = frozenset({GRAM})

    @override
    def __call__(self, weights: Weights, evidence: Evidence, selection: Selection) -> tuple[dict[str, Tensor], Mask]:
        _, rates = Cut()(weights, evidence, selection)
        if rates.keys() - selection.unit.pool(weights).keys():
            raise UnsupportedError(f"SparseGPT: expected units within a tensor, found {type(selection.unit).__name__}")
        solved: dict[str, Tensor] = {}
        mask: dict[str, Tensor] = {}
        for name, kept in rates.items():
            weight = weights[name].detach()
            grams = evidence.damped(name, self.damping).to(weight.device)
            rows, stay, form = evidence.rows(name, weight), evidence.rows(name, kept), evidence.form(name)
            d, width = grams.shape[2], form.width or grams.shape[2]
            kernel = weight.shape[2:] if math.prod(weight.shape[1:]) == width else ()  # of a convolution
            new, stays = rows.clone(), torch.zeros_like(stay)
            for group, gram in enumerate(grams):
                n = min(d, width - group % form.n_blocks(d) * d)  # the rest of a last block is padding
                matrix, density = (
                    rows[group, :, :n].unflatten(1, (-1, *kernel)),
                    float(stay[group, :, :n].double().mean()),
                )
                swept = self._sweep(name, matrix, density, gram[:n, :n], selection)
                new[group, :, :n], stays[group, :, :n] = (part.flatten(1) for part in swept)
            mask[name] = evidence.form(name).weight(stays, weight.shape)
            solved[name] = masked(evidence.form(name).weight(new, weight.shape).to(weight.dtype), mask[name])
        return solved, Mask(mask)

    def _sweep(
        self, name: str, weight: Tensor, density: float, gram: Float[Tensor, "d d"], selection: Selection
    ) -> tuple[Tensor, Tensor]:
        upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)
        matrix, kept = weight.double().flatten(1), torch.ones_like(weight, dtype=torch.bool)
        per_input = weight[0, 0].numel()
        together = selection.scope.length * max(1, self.columns // (per_input * selection.scope.length))
        seen = taken = 0
        for inputs in torch.arange(weight.shape[1]).split(together):
            first, end = int(inputs[0]), int(inputs[-1]) + 1
            span = slice(first * per_input, end * per_input)
            part = matrix[:, span].clone()
            scores = (part / upper.diagonal()[span]).square().reshape(len(part), -1, *weight.shape[2:])
            n = selection.scope.table(selection.unit.pool({name: scores})[name], name).shape[1]
            # Counts are rounded along the way, so that they add up to the whole tensor's.
            seen, count = seen + n, round(density * (seen + n)) - taken
            taken += count
            chosen = select({name: scores}, Count(count), selection.scope, selection.unit)[name]
            kept[:, first:end] = chosen
            stays, errors = chosen.flatten(1), torch.zeros_like(part)
            triangle = upper[span, span]
            for j in range(part.shape[1]):
                errors[:, j] = part[:, j] * ~stays[:, j] / triangle[j, j]
                part[:, j:] -= errors[:, j : j + 1] * triangle[j, j:]
            matrix[:, span] = part
            matrix[:, span.stop :] -= errors @ upper[span, span.stop :]
        return matrix.reshape(weight.shape), kept
