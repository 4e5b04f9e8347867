"""L0 regularisation by hard-concrete gates (Louizos, Welling & Kingma 2018).

Every weight, or member of a unit, has a gate z, so that w = θz. With u ~ U(0, 1):
s = σ((log u − log(1 − u) + log α)/β), z = clip(s(ζ − γ) + γ, 0, 1), whose mass at zero is trained through
P(z ≠ 0) = σ(log α − β log(−γ/ζ)). At test time z = clip(σ(log α)(ζ − γ) + γ, 0, 1), with exact zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from laconic.core.distributed import generator
from laconic.model.modules import unwrap
from laconic.pruning.units import EACH_WEIGHT, Unit
from laconic.training.rules import State
from laconic.training.stochastic import Named, StochasticWeights

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
MIN_DISTANCE = 1e-6  # u keeps this distance from 0 and 1


def gate(log_alpha: Tensor, u: Tensor) -> Tensor:
    """The hard-concrete sample z, in [0, 1], from uniform `u`."""
    return _stretched(torch.sigmoid((torch.logit(u, MIN_DISTANCE) + log_alpha) / BETA))


def settled_gate(log_alpha: Tensor) -> Tensor:
    """The gate of test time, in [0, 1]."""
    return _stretched(torch.sigmoid(log_alpha))


def open_probability(log_alpha: Tensor) -> Tensor:
    """P(z ≠ 0)."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def _stretched(s: Tensor) -> Tensor:
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


@dataclass(frozen=True)
class Gates(StochasticWeights):
    """Train hard-concrete gates with the weights, and leave a network of exact zeros.

    The mean loss gains `penalty`/`n_examples`·Σ P(z ≠ 0), the sum over weights. So a weight stays if it lowers the
    loss, summed over all training examples, by more than `penalty`. The paper's λ is `penalty`/`n_examples`; its
    penalty on MNIST is 0.1. One sample serves the whole batch, as in the paper. log α often needs a larger learning
    rate than the weights.

    Attributes:
        penalty: charged for each kept weight, in nats; higher values give sparser networks.
        n_examples: length of the training set.
        unit: what shares a gate; ``Block(1, None)`` for neurons and filters, ``Block(None, 1)`` for inputs.
        dropped: initial 1 − σ(log α), in (0, 1): the chance that s is below one half.
    """

    penalty: float
    n_examples: int
    unit: Unit = EACH_WEIGHT
    dropped: float = 0.2

    def __post_init__(self) -> None:
        if self.penalty < 0:
            raise ValueError(f"penalty: expected 0 or more, found {self.penalty}")
        if not 0 < self.dropped < 1:
            raise ValueError(f"dropped: expected a fraction within (0, 1), found {self.dropped}")

    @override
    def chosen(self, model: nn.Module) -> Mapping[str, Tensor]:
        return self.unit.reach(super().chosen(model), unwrap(model))

    @override
    def start(self, means: Named) -> Named:
        log_alpha = math.log(1 - self.dropped) - math.log(self.dropped)
        return {name: torch.full_like(member, log_alpha) for name, member in self.unit.pool(means).items()}

    @override
    def sample(self, state: State, step: int) -> Named:
        trained = state["trained"]
        draw = generator(self.seed, step, next(iter(trained.values())).device)
        drawn = {n: torch.rand(t.shape, generator=draw, device=draw.device).to(t) for n, t in trained.items()}
        return self._gated(state["means"], {n: gate(t, drawn[n]) for n, t in trained.items()})

    @override
    def cost(self, state: State, step: int) -> Tensor:
        chances = {name: open_probability(log_alpha) for name, log_alpha in state["trained"].items()}
        chances = self.unit.spread(chances, state["means"])
        return self.penalty / self.n_examples * torch.stack([chance.sum() for chance in chances.values()]).sum()

    @override
    def deterministic(self, state: State) -> Named:
        return self._gated(state["means"], {n: settled_gate(log_alpha) for n, log_alpha in state["trained"].items()})

    def _gated(self, means: Named, gates: Named) -> Named:
        spread = self.unit.spread(gates, means)
        return {name: mean * spread[name] + 0.0 for name, mean in means.items()}  # no −0
