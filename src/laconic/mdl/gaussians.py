"""Weights of limited precision: their Gaussians, and the prior they are coded under.

A weight with the posterior Q = N(μ_q, σ_q²) costs, once the bits that chose the sample are refunded ("bits back"), its
divergence from the prior P = N(μ_p, σ_p²):

    G(P, Q) = log(σ_p/σ_q) + [σ_q² − σ_p² + (μ_p − μ_q)²] / 2σ_p²

Under a mixture Σ π_i P_i the sender picks a component with probability r_i ∝ π_i e^(−G_i), codes it under π and the
sample under P_i, and is refunded both choices: Ĝ = −log Σ π_i e^(−G_i).

Source: Hinton & van Camp (1993), "Keeping neural networks simple by minimizing the description length of the weights".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_VARIANCE = 1e-30  # where logarithms and slopes of roots would be infinite
MAX_EXPONENT = 60.0  # e⁶⁰ nats exceeds any real cost, and its square still fits a float32


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent numbers N(mean, variance): one for each element of a tensor.

    Attributes:
        mean: μ, of any shape.
        variance: σ², of the same shape; 0 for exact numbers.
    """

    mean: Tensor
    variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of all, μ + σε, differentiable; the noise is drawn on the CPU, in float32."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=torch.float32)
        return self.mean + self.variance.sqrt() * noise.to(self.mean)

    def log_density(self, values: Tensor) -> Tensor:
        """The log density at each of `values`, in nats."""
        return -0.5 * ((values - self.mean) ** 2 / self.variance + torch.log(2 * math.pi * self.variance))


@dataclass(frozen=True, eq=False)
class Mixture:
    """An adaptive coding prior Σ π_i N(m_i, s_i²), all of whose parameters may be trained.

    Attributes:
        means: m, (components,).
        log_variances: log s², (components,).
        logits: π before its softmax, (components,).
    """

    means: Tensor
    log_variances: Tensor
    logits: Tensor

    @classmethod
    def evenly_spaced(cls, n_components: int, reach: float) -> Mixture:
        """Components of equal shares, means from -reach to reach, two deviations apart; one alone is N(0, reach²)."""
        means = torch.linspace(-reach, reach, n_components) if n_components > 1 else torch.zeros(1)
        deviation = reach / (n_components - 1) if n_components > 1 else reach
        return cls(means, torch.full_like(means, 2 * math.log(deviation)), torch.zeros_like(means))

    def nats(self, weights: Gaussian) -> Tensor:
        """Ĝ: the expected cost of each weight, in nats; of the weights' shape, 0 or more."""
        across = (-1, *[1] * weights.mean.ndim)
        means, log_variances = self.means.view(across), self.log_variances.view(across)
        log_ratio = weights.variance.clamp_min(MIN_VARIANCE).log() - log_variances  # of σ_q² to σ_p²
        ratio, precision = (torch.exp(power.clamp(max=MAX_EXPONENT)) for power in (log_ratio, -log_variances))
        divergence = 0.5 * (ratio - 1 - log_ratio + (weights.mean - means) ** 2 * precision)
        return -torch.logsumexp(torch.log_softmax(self.logits, 0).view(across) - divergence, 0)

    def density(self, values: Tensor) -> Tensor:
        """The density at each of `values`, of their shape."""
        across = (-1, *[1] * values.ndim)
        parts = Gaussian(self.means.view(across), self.log_variances.exp().view(across))
        shares = torch.log_softmax(self.logits, 0).view(across)
        return torch.logsumexp(shares + parts.log_density(values), 0).exp()

    def bits(self, n_weights: int) -> float:
        """An estimate of the prior's bits: ½ log₂ n for each of its 3k − 1 parameters (Rissanen 1983).

        That is the precision to which `n_weights` determine a parameter; the proportions add up to 1.
        """
        return 0.5 * math.log2(max(n_weights, 1)) * (3 * len(self.means) - 1)
