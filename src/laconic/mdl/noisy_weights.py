"""Noisy weights (Hinton & van Camp 1993): the description length of a network, trained by gradients.

Every weight has a posterior N(μ, σ²), and all share a mixture of Gaussians as the prior they are coded under. A weight
costs Ĝ (see `laconic.mdl.gaussians`): it is cheap if it tolerates noise, or lies where the prior expects it. μ, log σ²
and the prior are trained together, so the prior moves to where the weights are and the weights to where the prior is.

With independent weights, a layer that is linear in them puts out Gaussians of mean layer(x; μ) and variance
layer(x²; σ²). Sampling those gives each example its own noise, for a second pass through the layer, and gradients of
far smaller variance (the local reparameterisation of Kingma, Salimans & Welling 2015). At several positions
(convolutions), noise is drawn as if they shared no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from laconic.core.distributed import generator, mean_of_ranks, rank
from laconic.errors import UnsupportedError
from laconic.mdl.gaussians import Gaussian, Mixture
from laconic.model.modules import unwrap
from laconic.pruning import scopes
from laconic.training.rules import Attached, State, StepContext
from laconic.training.stochastic import Named, StochasticWeights, perturbed

FIVE_GAUSSIANS = Mixture.evenly_spaced(5, 0.24)  # the paper's
SHARED = scopes.Global()
PARTS = ("means", "log_variances", "logits")
MIN_VARIANCE = 1e-20  # where inputs are 0 the root's slope would be infinite
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Hook: TypeAlias = Callable[[nn.Module, Any, Tensor], Tensor | None]


@dataclass(frozen=True)
class NoisyWeights(StochasticWeights):
    """Train a Gaussian for each weight, and the mixture of Gaussians they are coded under.

    The mean loss gains `coefficient(step)`/`n_examples`·Σ Ĝ in nats, so that at 1, with a loss in nats, it is the
    expected description length per example. The means stay when the rule is removed. `bits_back` counts `posterior` and
    `priors`.

    One sample serves a whole batch, in pairs of opposite signs. With `local`, layers' outputs are drawn instead of
    weights, with noise for each example, by hooks on the layers.

    Attributes:
        n_examples: length of the training set.
        coefficient: weight of the cost, by step: annealed to 1, such as ``Schedule(1, end, linear)``.
        prior: the initial prior.
        scope: what shares a prior: ``Global()`` or ``PerTensor()``.
        initial: the first log σ².
        local: draw outputs of linear and convolutional layers; positions and tied layers draw independently.
    """

    n_examples: int
    coefficient: Callable[[int], float]
    prior: Mixture = FIVE_GAUSSIANS
    scope: scopes.Global | scopes.PerTensor = SHARED
    initial: float = -9.0
    local: bool = False

    def posterior(self, state: State) -> dict[str, Gaussian]:
        """The weights' Gaussians, by name."""
        trained = state["trained"]
        return {n: Gaussian(mean, torch.exp(trained[n].detach())) for n, mean in state["means"].items()}

    def priors(self, state: State) -> dict[str, Mixture]:
        """The prior of each tensor, by its name; the same object where it is shared."""
        return self._priors(state["means"], {n: value.detach() for n, value in state["trained"].items()})

    @override
    def start(self, means: Named) -> Named:
        first = next(iter(means.values()))
        values = {name: torch.full_like(mean, self.initial) for name, mean in means.items()}
        for owner in [""] if self.scope.together else means:
            values |= {f"{owner}:{part}": getattr(self.prior, part).to(first, copy=True) for part in PARTS}
        return values

    @override
    def sample(self, state: State, step: int) -> Named:
        means = state["means"]
        return means if self.local else perturbed(means, state["trained"], self.seed, step)

    @override
    def cost(self, state: State, step: int) -> Tensor:
        means, trained = state["means"], state["trained"]
        priors = self._priors(means, trained)
        costs = [prior.nats(Gaussian(means[name], torch.exp(trained[name]))).sum() for name, prior in priors.items()]
        return self.coefficient(step) / self.n_examples * torch.stack(costs).sum()

    @override
    def deterministic(self, state: State) -> Named:
        return state["means"]

    @override
    def listen(self, attached: Attached) -> Sequence[RemovableHandle]:
        if not self.local:
            return []
        names = {id(parameter): name for name, parameter in self.chosen(attached.model).items()}
        layers: list[tuple[nn.Module, dict[str, str]]] = []
        for layer in unwrap(attached.model).modules():
            own = {part: names[id(p)] for part, p in layer.named_parameters(recurse=False) if id(p) in names}
            if own and not isinstance(layer, nn.Linear | Convolution):
                name, found = next(iter(own.values())), type(layer).__name__
                raise UnsupportedError(f"{name}: local noise needs a linear or convolutional layer, found {found}")
            layers += [(layer, own)] if own else []

        @lru_cache(maxsize=1)
        def draw(step: int, device: torch.device) -> torch.Generator:
            return generator(self.seed + rank(), step, device)  # each rank has its own, as it has its own examples

        return [layer.register_forward_hook(_noise(layer, own, attached, draw)) for layer, own in layers]

    @override
    def before(self, state: State, now: StepContext) -> State:
        trained = state["trained"]
        felt = {n: p.grad.clone() for n, p in trained.items() if self.local and p.grad is not None}
        state = super().before(state, now)
        for name, gradient in mean_of_ranks(felt).items():
            found = trained[name].grad
            assert found is not None
            found.add_(gradient)
        return state

    def _priors(self, means: Named, trained: Named) -> dict[str, Mixture]:
        owners = [""] if self.scope.together else list(means)
        made = {owner: Mixture(*(trained[f"{owner}:{part}"] for part in PARTS)) for owner in owners}
        return {name: made.get(name) or made[""] for name in means}


def _noise(
    layer: nn.Module, own: Mapping[str, str], attached: Attached, draw: Callable[[int, torch.device], torch.Generator]
) -> Hook:
    """A hook that adds noise to the outputs of a layer, given the names of its random parameters."""

    def hook(called: nn.Module, args: tuple[Tensor, ...], outputs: Tensor) -> Tensor | None:
        if attached.is_deterministic or called is not layer:  # a copy of the model is a plain network
            return None
        trained = attached.state["trained"]
        variances = {part: torch.exp(trained[name]) for part, name in own.items()}
        variance = _squared(called, args[0] ** 2, variances.get("weight"), variances.get("bias"))
        random = draw(attached.step, outputs.device)
        noise = torch.randn(outputs.shape, generator=random, device=outputs.device).to(outputs)
        return outputs + variance.clamp_min(MIN_VARIANCE).sqrt() * noise

    asked: Any = torch.compiler.disable(hook)  # also in a compiled model, at every call
    return asked


def _squared(layer: nn.Module, squares: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The layer's outputs for squared inputs, with variances as weights; None for an exact parameter."""
    assert isinstance(layer, nn.Linear | Convolution)
    weight = torch.zeros_like(layer.weight) if weight is None else weight
    if isinstance(layer, nn.Linear):
        return F.linear(squares, weight, bias)
    return layer._conv_forward(squares, weight, bias)
