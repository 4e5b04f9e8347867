"""Noisy weights (Hinton & van Camp 1993): the description length of a network, trained by gradients, and counted.

Every weight has a posterior Q = N(μ_q, σ_q²), and all share a mixture of Gaussians as the prior they are coded under. A
sender who picks each weight at random from its posterior may choose the random bits, and hide other data in them, which
the receiver gets back ("bits back"). So a weight costs its divergence from the prior P = N(μ_p, σ_p²):

    G(P, Q) = log(σ_p/σ_q) + [σ_q² − σ_p² + (μ_p − μ_q)²] / 2σ_p²

Under a mixture Σ π_i P_i the sender picks a component with probability r_i ∝ π_i e^(−G_i), codes it under π and the
sample under P_i, and is refunded both choices: Ĝ = −log Σ π_i e^(−G_i). A weight is cheap if it tolerates noise, or
lies where the prior expects it. μ, log σ² and the prior are trained together, so the prior moves to where the weights
are and the weights to where the prior is. The data are coded by the network that was drawn, so their bits are a mean
over draws. All bits here are estimates, not sizes of files.

With independent weights, a layer that is linear in them puts out Gaussians of mean layer(x; μ) and variance
layer(x²; σ²). Sampling those gives each example its own noise, for a second pass through the layer, and gradients of
far smaller variance (the local reparameterisation of Kingma, Salimans & Welling 2015). At several positions
(convolutions), noise is drawn as if they shared no weights.

Source: Hinton & van Camp (1993), "Keeping neural networks simple by minimizing the description length of the weights".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from laconic.core.distributed import generator, mean_of_ranks, rank
from laconic.description.describe import evaluate
from laconic.description.ledger import Ledger, LedgerRow
from laconic.errors import MismatchError, UnsupportedError
from laconic.model.modules import unwrap
from laconic.model.objective import DEFAULT_OBJECTIVE, Objective
from laconic.pruning import scopes
from laconic.training.rules import Attached, State, StepContext
from laconic.training.stochastic import Named, StochasticWeights, perturbed

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


FIVE_GAUSSIANS = Mixture.evenly_spaced(5, 0.24)  # the paper's
SHARED = scopes.Global()
PARTS = ("means", "log_variances", "logits")
MIN_OUTPUT_VARIANCE = 1e-20  # where inputs are 0 the root's slope would be infinite
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
        return outputs + variance.clamp_min(MIN_OUTPUT_VARIANCE).sqrt() * noise

    asked: Any = torch.compiler.disable(hook)  # also in a compiled model, at every call
    return asked


def _squared(layer: nn.Module, squares: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The layer's outputs for squared inputs, with variances as weights; None for an exact parameter."""
    assert isinstance(layer, nn.Linear | Convolution)
    weight = torch.zeros_like(layer.weight) if weight is None else weight
    if isinstance(layer, nn.Linear):
        return F.linear(squares, weight, bias)
    return layer._conv_forward(squares, weight, bias)


BITS_BACK = "bits back (expected)"


def bits_back(
    model: nn.Module,
    posterior: Mapping[str, Gaussian],
    priors: Mapping[str, Mixture],
    data_bits: float = 0.0,
    n_examples: int = 0,
) -> Ledger:
    """The expected description length of `model` with weights drawn from `posterior`.

    A tensor's row holds Σ Ĝ, a prior's row ½ log₂ n bits per parameter; what is not random is charged as it is stored.
    No row is measured: no file has this length.

    Args:
        model: the network; its state holds what is not random.
        posterior: the weights' Gaussians by name, from `NoisyWeights.posterior`.
        priors: the prior of each, by the same names; a shared one is sent once.
        data_bits: bits of the targets, from `expected_data_bits` or `residual_bits`.
        n_examples: number of targets.

    Raises:
        MismatchError: a posterior belongs to no tensor, or has no prior.
    """
    state = unwrap(model).state_dict(keep_vars=True)
    for name in posterior:
        if name not in state or name not in priors:
            missing = "tensor of the model" if name not in state else "prior"
            raise MismatchError(f"{name}: expected a {missing}, found none")
    rows = [
        LedgerRow(name, BITS_BACK, float(priors[name].nats(found).sum()) / math.log(2), measured=False)
        for name, found in posterior.items()
    ]
    for prior in {id(priors[name]): priors[name] for name in posterior}.values():
        users = [name for name in posterior if priors[name] is prior]
        bits = prior.bits(sum(posterior[name].mean.numel() for name in users))
        rows.append(LedgerRow(users[0] if len(users) == 1 else "", "prior", bits, measured=False))
    seen = {id(state[name]) for name in posterior}
    for name, tensor in state.items():
        if id(tensor) not in seen:  # a tied one once
            seen.add(id(tensor))
            rows.append(LedgerRow(name, "as stored", 8.0 * tensor.dtype.itemsize * tensor.numel(), measured=False))
    if n_examples:
        rows.append(LedgerRow("", "targets given the network", data_bits, measured=False, of_data=True))
    return Ledger(tuple(rows), n_examples=n_examples)


@torch.no_grad()
def expected_data_bits(
    model: nn.Module,
    posterior: Mapping[str, Gaussian],
    batches: Collection[Any],
    objective: Objective = DEFAULT_OBJECTIVE,
    n_draws: int = 10,
    seed: int = 0,
) -> float:
    """The mean over draws of the weights of Σ −log2 p(target | input); the model stays as it is.

    Args:
        model: the network; inputs are moved to its device.
        posterior: the Gaussians of its weights, by name.
        batches: see `laconic.model.Objective`; read once for each draw.
        objective: as for `evaluate`.
        n_draws: number of networks drawn.
        seed: seed of the draws.
    """
    draw = torch.Generator().manual_seed(seed)
    parameters = dict(unwrap(model).named_parameters())
    before = {name: parameters[name].detach().clone() for name in posterior}
    total = 0.0
    try:
        for _ in range(n_draws):
            for name, found in posterior.items():
                parameters[name].copy_(found.sample(draw))
            total += evaluate(model, batches, objective).bits
    finally:
        for name, value in before.items():
            parameters[name].copy_(value)
    return total / n_draws


def residual_bits(squared_error: float, n_targets: int, width: float) -> float:
    """Bits of real targets, stated to within `width`, as residuals under a Gaussian of the best deviation.

    N/2·log₂(2πe·Σ⟨(d − y)²⟩/N) − N·log₂ t, and ½ log₂ N for the deviation. The density must be nearly constant over a
    width, so `width` must be well below the residuals' deviation.

    Args:
        squared_error: the (expected) squared error over all targets.
        n_targets: N, the number of targets.
        width: t, to which targets are stated, in their units.
    """
    each = 0.5 * math.log2(2 * math.pi * math.e * squared_error / n_targets) - math.log2(width)
    return n_targets * each + 0.5 * math.log2(n_targets)
