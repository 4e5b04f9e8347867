"""Criteria: what is lost if a weight goes.

A criterion is a function from named weights and evidence to named scores of the same shapes; the lowest go first. It
declares the evidence it `needs`. Scores `in_bits` estimate by how many bits the code of the observed examples grows if
the weight goes, so they can be weighed against the bits that it saves (`Price`). Other scores only rank. A criterion
may leave weights without a score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from laconic.errors import MismatchError
from laconic.model.evidence import (
    BITS_PER_NAT,
    FISHER,
    GRADIENT,
    GRAM,
    MOVEMENT,
    NO_EVIDENCE,
    NORM,
    SENSITIVITY,
    Evidence,
    Statistic,
)

Weights: TypeAlias = Mapping[str, Tensor]


@runtime_checkable
class Criterion(Protocol):
    """A function from weights and evidence to scores.

    Attributes:
        needs: the statistics that it looks up.
        in_bits: whether scores are bits lost by the observed examples; else they only rank.
    """

    needs: frozenset[Statistic]
    in_bits: bool

    def __call__(self, weights: Weights, evidence: Evidence = NO_EVIDENCE, /) -> dict[str, Tensor]:
        """Scores of the weights' shapes, by name."""
        ...


Score: TypeAlias = Callable[..., dict[str, Tensor]]
CRITERIA: dict[str, Criterion] = {}  # by name: those that need no options


def criterion(*needs: Statistic, in_bits: bool = False) -> Callable[[Score], Criterion]:
    """Register a criterion under its function's name in `CRITERIA`, where recipes, command line and tests find it.

    Args:
        needs: the statistics that it looks up.
        in_bits: whether its scores are bits lost by the observed examples; else they only rank.
    """

    def register(score: Score) -> Criterion:
        return CRITERIA.setdefault(score.__name__, declare(score, frozenset(needs), in_bits))

    return register


def declare(score: Score, needs: frozenset[Statistic], in_bits: bool) -> Criterion:
    """A criterion that is not registered: `score` with its attributes set."""
    score.needs, score.in_bits = needs, in_bits  # pyright: ignore[reportFunctionMemberAccess]
    return score  # pyright: ignore[reportReturnType]


@criterion()
def magnitude(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`|w|` (Han et al. 2015); of a group of weights, their mean absolute value (L1)."""
    return {name: weight.detach().abs() for name, weight in weights.items()}


@criterion()
def squared_magnitude(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`w²`: ranks single weights as `magnitude` does, groups by their mean square (L2)."""
    return {name: weight.detach().square() for name, weight in weights.items()}


def random(seed: int = 0) -> Criterion:
    """Uniform random scores, a control for comparisons: the same seed gives the same scores to the same tensors."""

    def uniform(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {n: torch.rand(w.shape, generator=generator).to(w.device) for n, w in weights.items()}

    return declare(uniform, frozenset(), False)


@criterion(GRADIENT, in_bits=True)
def taylor(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`|w·g|`: the loss's change to first order (Mozer & Smolensky 1989; Molchanov et al. 2019)."""
    scale = evidence.n * BITS_PER_NAT
    return {n: (w.detach() * evidence.of(GRADIENT, n)).abs() * scale for n, w in weights.items()}


@criterion(FISHER, in_bits=True)
def fisher(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`½ w² E[g²]`: to second order, by the Fisher matrix's diagonal (OBD; LeCun et al. 1990)."""
    scale = evidence.n * BITS_PER_NAT / 2
    return {n: w.detach().square() * evidence.of(FISHER, n) * scale for n, w in weights.items()}


@criterion(GRADIENT)
def snip(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`|w·g| / Σ|w·g|`: connection sensitivity, at initialisation (Lee et al. 2019, eq. 6)."""
    products = {n: (w.detach() * evidence.of(GRADIENT, n)).abs() for n, w in weights.items()}
    total = sum(float(product.sum()) for product in products.values())
    return {name: product / total if total else product for name, product in products.items()}


@criterion(MOVEMENT)
def movement(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`−Σ w·g` over steps: weights that move away from zero stay (Sanh et al. 2020, eq. 4)."""
    return {name: evidence.of(MOVEMENT, name) for name in weights}


@criterion(NORM)
def wanda(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`|w|·‖x‖₂`, with the norm of the weight's input over the data (Sun et al. 2024); made for the scope `PerRow`."""
    return {n: w.detach().abs() * evidence.of(NORM, n) for n, w in weights.items() if w.ndim > 1}


@criterion()
def lamp(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`w² / Σ_{|v| ≥ |w|} v²` in each tensor; for a contest of the model (Lee et al. 2021, eq. 2)."""
    lost: dict[str, Tensor] = {}
    for name, weight in weights.items():
        values, order = weight.detach().flatten().double().square().sort()
        not_smaller = values.flip(0).cumsum(0).flip(0)
        # Equal weights all count in each other's sum, so equal weights score alike.
        first = torch.searchsorted(values, values)
        score = torch.where(values > 0, values / not_smaller[first.clamp(max=len(values) - 1)], 0)
        lost[name] = torch.empty_like(score).scatter_(0, order, score).reshape(weight.shape).to(weight.dtype)
    return lost


@criterion(GRAM)
def output_error(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """The layer's output error when the row's other weights make up for it, relative to the output.

    The order is exact for each row (Hassibi & Stork 1993; Frantar & Alistarh 2022, alg. 1). Use it with a solver that
    makes up for what goes. Relative errors let all layers of a model compete; tables whose rows are looked up count as
    often as `Evidence.counts` says.
    """
    return {n: error * (evidence.counts(n) / max(float(error.sum()), 1e-300)) for n, error in _added(weights, evidence)}


@criterion(GRAM, SENSITIVITY, in_bits=True)
def obs(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`½ E[δ²] · w²/[H⁻¹]`: `output_error`, not relative but at what an error of that output costs the loss.

    The Fisher matrix of a row is approximated by its inputs' Gram matrix times its output's squared gradient (Martens &
    Grosse 2015).
    """
    scale = evidence.n * BITS_PER_NAT / 2
    lost = {}
    for name, error in _added(weights, evidence):
        form, rows = evidence.form(name), evidence.rows(name, error)
        sensitivity = form.per_row(evidence.of(SENSITIVITY, name).to(rows.device), len(rows), rows.shape[2])
        lost[name] = form.weight(rows * sensitivity * scale, error.shape)
    return lost


def _added(weights: Weights, evidence: Evidence) -> Iterator[tuple[str, Tensor]]:
    """Errors by `added_errors` of all weights that multiply inputs, which biases and norms do not."""
    from laconic.pruning.obs import added_errors

    for name, weight in weights.items():
        if weight.ndim > 1:
            grams = evidence.damped(name)
            rows = evidence.rows(name, weight.detach().cpu().double())
            inverses = torch.cholesky_inverse(torch.linalg.cholesky(grams))
            errors = [added_errors(r.numpy(), i.numpy()) for r, i in zip(rows, inverses, strict=True)]
            error = evidence.form(name).weight(torch.from_numpy(np.stack(errors)), weight.shape)
            yield name, error.to(weight.device)


@criterion()
def norm_scale(weights: Weights, evidence: Evidence = NO_EVIDENCE) -> dict[str, Tensor]:
    """`|γ|` of batch norms, as the score of the channel it scales (network slimming; Liu et al. 2017).

    Scores one-dimensional weights only: use it with units that hold them, such as channels.

    Raises:
        MismatchError: there is no such weight.
    """
    scales = {n: w.detach().abs() for n, w in weights.items() if w.ndim == 1 and n.endswith("weight")}
    if not scales:
        raise MismatchError("norm_scale: expected scales of batch norms among the weights, found none")
    return scales
