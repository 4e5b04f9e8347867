"""Noisy weights (Hinton & van Camp 1993): the description length of a network, trained by gradients.

Every weight has a posterior N(μ, σ²), and all share a mixture of Gaussians as the prior they are coded under.
What a weight costs is Ĝ (see `laconic.mdl.gaussians`): a weight that can bear noise is cheap, and one that lies
where the prior expects it is cheap too. μ, log σ² and the prior are trained together, so the prior moves to
where the weights are and the weights to where the prior is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from laconic.core.distributed import mean_of_ranks
from laconic.mdl.gaussians import Gaussian, Mixture
from laconic.mdl.local_noise import listen
from laconic.model.modules import unwrap
from laconic.pruning import scopes
from laconic.training.rules import Attached, State, StepContext
from laconic.training.stochastic import Named, StochasticWeights, perturbed

FIVE_GAUSSIANS = Mixture.evenly_spaced(5, 0.24)  # the paper's
SHARED = scopes.Global()
PARTS = ("means", "log_variances", "logits")


@dataclass(frozen=True)
class NoisyWeights(StochasticWeights):
    """Train a Gaussian for each weight, and the mixture of Gaussians they are coded under.

    The mean loss gains `coefficient(step)`/`n_examples`·Σ Ĝ in nats, so that at 1, with a loss in nats, it is
    the expected description length an example. It leaves the means. `posterior` and `priors` are what
    `bits_back` counts.

    Drawn as `VariationalDropout` draws, one sample serves a whole batch, in pairs of opposite signs. With
    `local` no weight is drawn, but what layers put out: with independent inputs' weights, the outputs of an
    example are Gaussians of mean layer(x; μ) and variance layer(x²; σ²), and each example has noise of its own
    (Kingma, Salimans & Welling 2015). For that, hooks lie on the layers until the rule is removed.

    Attributes:
        n_examples: of the training set.
        coefficient: of the weights' cost, by step: annealed to 1, such as ``Schedule(1, end, linear)``.
        prior: the prior at first.
        scope: what shares a prior: ``Global()`` or ``PerTensor()``.
        initial: the first log σ².
        local: draw layers' outputs, for each example, instead of weights; for linear and convolutional layers
            (where positions and tied layers draw independently).
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

    def start(self, means: Named) -> Named:
        """The same log σ² for all, and each scope's prior."""
        first = next(iter(means.values()))
        values = {name: torch.full_like(mean, self.initial) for name, mean in means.items()}
        for owner in [""] if self.scope.together else means:
            values |= {f"{owner}:{part}": getattr(self.prior, part).to(first, copy=True) for part in PARTS}
        return values

    def sample(self, state: State, step: int) -> Named:
        """μ + σε; only μ where outputs are drawn instead."""
        means = state["means"]
        return means if self.local else perturbed(means, state["trained"], self.seed, step)

    def cost(self, state: State, step: int) -> Tensor:
        """The weights' expected cost in nats, for each training example."""
        means, trained = state["means"], state["trained"]
        priors = self._priors(means, trained)
        costs = [prior.nats(Gaussian(means[name], torch.exp(trained[name]))).sum() for name, prior in priors.items()]
        return self.coefficient(step) / self.n_examples * torch.stack(costs).sum()

    def deterministic(self, state: State) -> Named:
        """The means."""
        return state["means"]

    def listen(self, attached: Attached) -> Sequence[RemovableHandle]:
        """Where outputs are drawn: a hook on each layer."""
        if not self.local:
            return []
        names = {id(parameter): name for name, parameter in self.chosen(attached.model).items()}
        return listen(unwrap(attached.model), names, attached, self.seed)

    def before(self, state: State, now: StepContext) -> State:
        """Where outputs are drawn, log σ² has a gradient of its own from the loss."""
        trained = state["trained"]
        felt = {n: p.grad.clone() for n, p in trained.items() if self.local and p.grad is not None}
        state = super().before(state, now)
        for name, gradient in mean_of_ranks(felt).items():
            found = trained[name].grad
            assert found is not None
            found.add_(gradient)
        return state

    def _priors(self, means: Named, trained: Named) -> dict[str, Mixture]:
        owners = {name: "" if self.scope.together else name for name in means}
        made: Mapping[str, Mixture] = {
            owner: Mixture(*(trained[f"{owner}:{part}"] for part in PARTS)) for owner in {*owners.values()}
        }
        return {name: made[owner] for name, owner in owners.items()}
