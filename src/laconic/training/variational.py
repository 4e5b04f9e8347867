"""Sparse variational dropout (Molchanov, Ashukha & Vetrov 2017): noise finds the weights that do not matter.

Every weight has a posterior N(θ, σ²) under a log-uniform prior. With α = σ²/θ² the divergence is, to three digits,
KL ≈ ½ log(1 + α⁻¹) − k₁σ(k₂ + k₃ log α) + k₁, which falls as α grows: a weight that tolerates the noise gets more, and
above log α = 3 it is noise, and removed. θ and log σ² are trained (the additive parametrisation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from laconic.training.rules import State
from laconic.training.stochastic import Named, StochasticWeights, perturbed

K1, K2, K3 = 0.63576, 1.87320, 1.48695
MIN_SQUARE = 1e-16  # keeps log θ² finite


def kl_nats(log_alpha: Tensor) -> Tensor:
    """The divergence of a weight's posterior from the log-uniform prior, from 0 at α = ∞."""
    return 0.5 * F.softplus(-log_alpha) - K1 * torch.sigmoid(K2 + K3 * log_alpha) + K1


def log_alphas(means: Named, log_variances: Named) -> dict[str, Tensor]:
    """For each weight log α = log σ² − log θ²."""
    return {name: log_variances[name] - torch.log(mean**2 + MIN_SQUARE) for name, mean in means.items()}


@dataclass(frozen=True)
class VariationalDropout(StochasticWeights):
    """Train a variance with each weight, and remove the weights that became noise.

    The mean loss gains `kl_weight(step)`/`n_examples`·Σ KL, so that at 1 it is the variational bound per example. One
    sample of noise serves a whole batch, in pairs of opposite signs; the paper's local reparametrisation draws one for
    each example.

    Attributes:
        n_examples: length of the training set.
        kl_weight: weight of the divergence, by step: a warm-up such as ``Schedule(1, end, linear)``.
        threshold: weights above this log α are removed.
        initial: the first log σ².
    """

    n_examples: int
    kl_weight: Callable[[int], float]
    threshold: float = 3.0
    initial: float = -10.0

    @override
    def start(self, means: Named) -> Named:
        return {name: torch.full_like(mean, self.initial) for name, mean in means.items()}

    @override
    def sample(self, state: State, step: int) -> Named:
        return perturbed(state["means"], state["trained"], self.seed, step)

    @override
    def cost(self, state: State, step: int) -> Tensor:
        alphas = log_alphas(state["means"], state["trained"]).values()
        return self.kl_weight(step) / self.n_examples * torch.stack([kl_nats(alpha).sum() for alpha in alphas]).sum()

    @override
    def deterministic(self, state: State) -> Named:
        alphas = log_alphas(state["means"], state["trained"])
        return {name: mean.masked_fill(alphas[name] > self.threshold, 0) for name, mean in state["means"].items()}
