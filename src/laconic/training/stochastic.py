"""Weights that are random between steps: what gates, variational dropout and noisy weights share.

The parameters hold a sample w = f(θ, φ, ε), at which any forward and any loss give the gradient ∂L/∂w. Before the
optimizer's step θ returns to the parameters, and the chain rule gives the gradients of θ and φ, with the cost R added:
∂L/∂w·∂f/∂θ + ∂R/∂θ and ∂L/∂w·∂f/∂φ + ∂R/∂φ. The user's optimizer moves both; then a new sample is drawn. So forward and
state_dict keys stay those of the plain network. One sample serves a whole batch; where that is too noisy,
`laconic.mdl.NoisyWeights` can draw layers' outputs instead.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from laconic.core.distributed import generator
from laconic.model.selectors import compressible
from laconic.pruning.pruner import Parameters
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
