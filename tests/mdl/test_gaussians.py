import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from laconic.mdl import Gaussian, Mixture


def weights(n=200, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mean = 0.3 * torch.randn(n, generator=draw, dtype=torch.float64)
    return Gaussian(mean, torch.exp(torch.randn(n, generator=draw, dtype=torch.float64) - 4))


def mixture(seed=1):
    draw = torch.Generator().manual_seed(seed)
    return Mixture(*(torch.randn(3, generator=draw, dtype=torch.float64) for _ in range(3)))


def test_one_component_costs_the_divergence():
    prior = Mixture(*(torch.tensor([value]).double() for value in (0.1, -2.0, 7.0)))
    found = weights()
    expected = kl_divergence(Normal(found.mean, found.variance.sqrt()), Normal(0.1, math.exp(-1)))
    assert torch.allclose(prior.nats(found), expected)


def test_the_mixture_costs_what_its_code_spends():
    """Pick i with r ∝ π e^(−G), pay for i under π and for the weight under P_i, have H(r) refunded."""
    prior, found = mixture(), weights()
    parts = [Normal(m, torch.exp(lv / 2)) for m, lv in zip(prior.means, prior.log_variances, strict=True)]
    divergences = torch.stack([kl_divergence(Normal(found.mean, found.variance.sqrt()), p) for p in parts])
    shares = torch.log_softmax(prior.logits, 0)[:, None]
    picked = torch.softmax(shares - divergences, 0)
    spent = (picked * (divergences - shares)).sum(0) + (picked * picked.log()).sum(0)
    assert torch.allclose(prior.nats(found), spent)


def test_it_is_no_less_than_the_divergence_from_the_mixture():
    prior, found = mixture(), weights(20)
    draws = found.mean + found.variance.sqrt() * torch.randn(20_000, 20, dtype=torch.float64)
    divergence = (found.log_density(draws) - prior.density(draws).log()).mean(0)
    nats = prior.nats(found)
    assert (nats >= 0).all()
    assert (nats > divergence - 0.05).all()


def test_gradients_are_those_of_finite_differences():
    prior, found = mixture(), weights(6)
    inputs = [found.mean, found.variance.log(), prior.means, prior.log_variances, prior.logits]

    def cost(mean, log_variance, *parts):
        return Mixture(*parts).nats(Gaussian(mean, torch.exp(log_variance))).sum()

    assert torch.autograd.gradcheck(cost, [value.clone().requires_grad_() for value in inputs])


def test_extremes_stay_finite():
    mean = torch.tensor([0.0, 1e4, -1e4, 1.0], requires_grad=True)
    variance = torch.tensor([0.0, 1e-38, 1e30, 1.0], requires_grad=True)
    parts = [torch.tensor(v, requires_grad=True) for v in ([0.0, 1.0], [-200.0, 50.0], [0.0, -300.0])]
    nats = Mixture(*parts).nats(Gaussian(mean, variance))
    nats.sum().backward()
    assert torch.isfinite(nats).all()
    assert all(torch.isfinite(value.grad).all() for value in (mean, variance, *parts))


def test_spaced_components_are_two_deviations_apart():
    prior = Mixture.evenly_spaced(5, 0.24)
    assert prior.means.tolist() == pytest.approx([-0.24, -0.12, 0, 0.12, 0.24])
    assert torch.exp(prior.log_variances / 2).tolist() == pytest.approx([0.06] * 5)
    at = torch.linspace(-2, 2, 4001)
    assert float(prior.density(at).sum() * 0.001) == pytest.approx(1, abs=1e-4)
    assert Mixture.evenly_spaced(1, 0.3).means.tolist() == [0]
    assert float(torch.exp(Mixture.evenly_spaced(1, 0.3).log_variances / 2)) == pytest.approx(0.3)


def test_the_prior_itself_takes_bits():
    assert Mixture.evenly_spaced(5, 0.24).bits(1024) == pytest.approx(14 * 5)
    assert Mixture.evenly_spaced(1, 0.24).bits(1024) == pytest.approx(2 * 5)
