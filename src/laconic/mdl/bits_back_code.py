"""Bits back: the expected cost of a network of noisy weights. All numbers are estimates, not sizes of files.

A sender who picks each weight at random from its posterior may choose the random bits, and hide other data in them,
which the receiver gets back: so a weight costs only Ĝ (see `laconic.mdl.gaussians`). The data are coded by the network
that was drawn, so their bits are a mean over draws.

Source: Hinton & van Camp (1993).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from laconic.description.describe import CLASS_LABELS, Nats, evaluate
from laconic.description.ledger import Ledger, LedgerRow
from laconic.errors import MismatchError
from laconic.mdl.gaussians import Gaussian, Mixture
from laconic.model.modules import unwrap

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
    batches: Collection[tuple[Tensor, Tensor]],
    nats: Nats = CLASS_LABELS,
    n_draws: int = 10,
    seed: int = 0,
) -> float:
    """The mean over draws of the weights of Σ −log2 p(target | input); the model stays as it is.

    Args:
        model: the network; inputs are moved to its device.
        posterior: the Gaussians of its weights, by name.
        batches: pairs (inputs, targets), read once for each draw.
        nats: as for `evaluate`.
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
            total += evaluate(model, batches, nats).bits
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
