import copy
import math

import pytest
import torch
from torch import nn

import laconic
from laconic.mdl import Gaussian, Mixture


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def posterior_of(model, variance=0.01):
    return {
        n: Gaussian(w.detach().clone(), torch.full_like(w, variance))
        for n, w in laconic.model.compressible(model).items()
    }


def batches():
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(20, 6, generator=draw), torch.randint(0, 3, (20,), generator=draw)) for _ in range(2)]


def test_rows_are_the_divergences_and_nothing_is_measured(model):
    posterior, prior = posterior_of(model), laconic.mdl.Mixture.evenly_spaced(5, 0.24)
    ledger = laconic.mdl.bits_back(model, posterior, dict.fromkeys(posterior, prior), 17.0, 40)
    bits = ledger.by_tensor()
    for name, found in posterior.items():
        assert bits[name] == pytest.approx(float(prior.nats(found).sum()) / math.log(2))
    assert bits["0.bias"] == 32 * 5, "what is not random is charged as it is stored"
    assert bits[""] == prior.bits(45), "one prior is sent once"
    assert ledger.model_bits == 0
    assert not any(row.measured for row in ledger.rows)
    assert ledger.data_bits == 17
    assert ledger.total_bits == pytest.approx(ledger.expected_bits + 17)
    assert ledger.to_dict()["expected_bits"] == ledger.expected_bits
    text = str(ledger)
    assert "bits back (expected)" in text
    assert "estimate" in text
    assert "measured" not in text


def test_each_prior_is_sent(model):
    posterior = posterior_of(model)
    priors = {name: laconic.mdl.Mixture.evenly_spaced(3, 0.1) for name in posterior}
    rows = laconic.mdl.bits_back(model, posterior, priors).rows
    sent = {row.tensor: row.bits for row in rows if row.part == "prior"}
    assert sent == {name: priors[name].bits(posterior[name].mean.numel()) for name in posterior}


def test_weights_that_are_the_prior_are_free(model):
    posterior = {
        n: Gaussian(torch.zeros_like(w), torch.ones_like(w)) for n, w in laconic.model.compressible(model).items()
    }
    prior = Mixture(*torch.zeros(3, 1))
    bits = laconic.mdl.bits_back(model, posterior, dict.fromkeys(posterior, prior)).by_part()
    assert bits["bits back (expected)"] == pytest.approx(0, abs=1e-4)


def test_names_must_fit(model):
    posterior, prior = posterior_of(model), laconic.mdl.Mixture.evenly_spaced(5, 0.24)
    with pytest.raises(laconic.errors.MismatchError, match=r"2\.weight: expected a prior"):
        laconic.mdl.bits_back(model, posterior, {"0.weight": prior})
    with pytest.raises(laconic.errors.MismatchError, match="w: expected a tensor"):
        laconic.mdl.bits_back(model, {"w": posterior["0.weight"]}, {"w": prior})


def test_data_bits_are_a_mean_over_networks(model):
    before = copy.deepcopy(model.state_dict())
    still = laconic.mdl.expected_data_bits(model, posterior_of(model, 0.0), batches(), n_draws=2)
    assert still == pytest.approx(laconic.evaluate(model, batches()).bits)
    noisy = [laconic.mdl.expected_data_bits(model, posterior_of(model, 4.0), batches(), seed=s) for s in (0, 0, 1)]
    assert noisy[0] == noisy[1] != noisy[2]
    assert min(noisy) > still, "noise costs"
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items()), "the model is unchanged"


def test_residuals_cost_what_a_gaussian_of_their_deviation_spends():
    torch.manual_seed(0)
    residuals = 0.7 * torch.randn(500, dtype=torch.float64)
    deviation = float((residuals**2).mean().sqrt())
    normal = torch.distributions.Normal(torch.zeros(500, dtype=torch.float64), deviation)
    ideal = -float(torch.log2(normal.cdf(residuals + 0.005) - normal.cdf(residuals - 0.005)).sum())
    found = laconic.mdl.residual_bits(float((residuals**2).sum()), 500, 0.01)
    assert found == pytest.approx(ideal + 0.5 * math.log2(500), rel=1e-4)


def test_the_rules_posterior_is_what_is_counted(model):
    rule = laconic.mdl.NoisyWeights(40, lambda _: 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with laconic.attach(rule, model, optimizer) as attached:
        posterior, priors = rule.posterior(attached.state), rule.priors(attached.state)
        data_bits = laconic.mdl.expected_data_bits(model, posterior, batches())
        ledger = laconic.mdl.bits_back(model, posterior, priors, data_bits, 40)
    assert ledger.expected_bits > 0
    assert ledger.data_bits == data_bits
