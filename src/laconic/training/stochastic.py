"""Weights that are random between steps: gates and variational dropout, and what noisy weights share with them.

The parameters hold a sample w = f(θ, φ, ε), at which any forward and any loss give the gradient ∂L/∂w. Before the
optimizer's step θ returns to the parameters, and the chain rule gives the gradients of θ and φ, with the cost R added:
∂L/∂w·∂f/∂θ + ∂R/∂θ and ∂L/∂w·∂f/∂φ + ∂R/∂φ. The user's optimizer moves both; then a new sample is drawn. So forward and
state_dict keys stay those of the plain network. One sample serves a whole batch; where that is too noisy,
`laconic.mdl.NoisyWeights` can draw layers' outputs instead.

L0 regularisation (Louizos, Welling & Kingma 2018): every weight, or member of a unit, has a hard-concrete gate z, so
that w = θz. With u ~ U(0, 1): s = σ((log u − log(1 − u) + log α)/β), z = clip(s(ζ − γ) + γ, 0, 1), whose mass at zero
is trained through P(z ≠ 0) = σ(log α − β log(−γ/ζ)). At test time z = clip(σ(log α)(ζ − γ) + γ, 0, 1), with exact
zeros.

Sparse variational dropout (Molchanov, Ashukha & Vetrov 2017): every weight has a posterior N(θ, σ²) under a log-uniform
prior. With α = σ²/θ² the divergence is, to three digits, KL ≈ ½ log(1 + α⁻¹) − k₁σ(k₂ + k₃ log α) + k₁, which falls as
α grows: a weight that tolerates the noise gets more, and above log α = 3 it is noise, and removed. θ and log σ² are
trained (the additive parametrisation).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from laconic.core.distributed import generator
from laconic.model.modules import unwrap
from laconic.model.selectors import compressible
from laconic.pruning.pruner import Parameters
from laconic.pruning.units import EACH_WEIGHT, Unit
from laconic.training.rules import Rule, State, StepContext

Named = Mapping[str, Tensor]


def perturbed(means: Named, log_variances: Named, seed: int, step: int) -> Named:
    """θ + σε, with the noise of (seed, step).

    Pairs of steps share a draw with opposite signs, which cancels the terms linear in the noise.
    """
    draw = generator(seed, step // 2, next(iter(means.values())).device)
    sign = 1 - 2 * (step % 2)
    noise = {n: torch.randn(mean.shape, generator=draw, device=draw.device).to(mean) for n, mean in means.items()}
    return {n: mean + sign * torch.exp(log_variances[n] / 2) * noise[n] for n, mean in means.items()}


@dataclass(frozen=True, kw_only=True)
class StochasticWeights(Rule):
    """A rule that keeps a random sample of the weights in the parameters between steps.

    Its state is ``means`` (θ) and ``trained`` (φ), which the optimizer trains without weight decay.

    Attributes:
        lr: learning rate of φ; by default the optimizer's.
        seed: decides the noise, together with the step.
        parameters: which parameters of a model are random; ``partial(compressible, exclude=["conv1"])`` spares some.
    """

    lr: float | None = None
    seed: int = 0
    parameters: Parameters = compressible

    @property
    @override
    def needs_gradients(self) -> bool:
        return True

    @abstractmethod
    def start(self, means: Named) -> Named:
        """The first φ, by name, of any shapes."""

    @abstractmethod
    def sample(self, state: State, step: int) -> Named:
        """The weights w = f(θ, φ, ε), differentiable, with the noise of `step`."""

    @abstractmethod
    def cost(self, state: State, step: int) -> Tensor:
        """R(θ, φ), added to the mean loss."""

    @abstractmethod
    def deterministic(self, state: State) -> Named:
        """The deterministic weights."""

    def chosen(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The parameters that are random."""
        return self.parameters(model)

    @override
    def init(self, now: StepContext) -> State:
        means = {name: p.detach().clone() for name, p in self.chosen(now.model).items()}
        trained = {name: nn.Parameter(value) for name, value in self.start(means).items()}
        options = {} if self.lr is None else {"lr": self.lr}
        now.optimizer.add_param_group({"params": list(trained.values()), "weight_decay": 0.0, **options})
        return StochasticWeights.update(self, {"means": means, "trained": trained}, now)

    @override
    def before(self, state: State, now: StepContext) -> State:
        parameters = self.chosen(now.model)
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()}
        self._set(now.model, state["means"])
        last = now.step - 1  # when the sample was drawn
        with torch.enable_grad():
            means = {name: value.detach().requires_grad_() for name, value in state["means"].items()}
            differentiable = {**state, "means": means}
            drawn, cost = self.sample(differentiable, last), self.cost(differentiable, last)
            found = torch.autograd.grad(
                [*drawn.values(), cost],
                [*means.values(), *state["trained"].values()],
                [*(gradients[name] for name in drawn), torch.ones_like(cost)],
            )
        for parameter, value in zip([*parameters.values(), *state["trained"].values()], found, strict=True):
            if parameter.grad is None:
                parameter.grad = value
            else:  # in place: it may be a view of a bucket of data parallelism
                parameter.grad.copy_(value)
        return state

    @override
    def update(self, state: State, now: StepContext) -> State:
        state = {**state, "means": {name: p.detach().clone() for name, p in self.chosen(now.model).items()}}
        self._set(now.model, self.sample(state, now.step))
        return state

    @override
    def finish(self, state: State, now: StepContext) -> None:
        self._set(now.model, self.deterministic(state))

    def _set(self, model: nn.Module, values: Named) -> None:
        for name, parameter in self.chosen(model).items():
            parameter.copy_(values[name])


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
