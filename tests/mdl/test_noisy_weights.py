from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

import laconic
from laconic import attach
from laconic.errors import UnsupportedError
from laconic.mdl import Gaussian, Mixture, NoisyWeights
from laconic.model.selectors import compressible
from tests.support.nets import fitted_to_two_of_eight_inputs


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


EVERYTHING = partial(compressible, include=["re:.*"])


def at_once(step):
    del step
    return 1.0


def problem():
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    return model, torch.randn(7, 5).double(), torch.randint(0, 3, (7,))


def test_gradients_are_those_of_the_description_length():
    model, inputs, targets = problem()
    rule = NoisyWeights(20, at_once, initial=-2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    attached = attach(rule, model, optimizer)
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    trained = {n: p.detach().clone().requires_grad_() for n, p in attached.state["trained"].items()}
    theta = attached.state["means"]["weight"].clone().requires_grad_()
    noise = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))  # seed 0, step 0
    drawn = theta + torch.exp(trained["weight"] / 2) * noise
    prior = laconic.mdl.Mixture(trained[":means"], trained[":log_variances"], trained[":logits"])
    nats = prior.nats(Gaussian(theta, torch.exp(trained["weight"]))).sum()
    loss = F.cross_entropy(F.linear(inputs, drawn, model.bias), targets) + nats / 20
    expected = torch.autograd.grad(loss, [theta, *trained.values()])
    assert torch.allclose(model.weight.grad, expected[0])
    for parameter, gradient in zip(attached.state["trained"].values(), expected[1:], strict=True):
        assert torch.allclose(parameter.grad, gradient)


@pytest.mark.parametrize("parameters", [compressible, EVERYTHING], ids=["weights", "biases too"])
def test_outputs_drawn_locally_have_the_moments_of_drawn_weights(parameters):
    model, inputs, _ = problem()
    n = 4_000
    for local in (False, True):
        rule = NoisyWeights(20, at_once, initial=-2.0, local=local, parameters=parameters)
        clone = copy.deepcopy(model)
        attached = attach(rule, clone, torch.optim.SGD(clone.parameters(), lr=0.0))
        found = attached.rule.posterior(attached.state)
        variance = F.linear(inputs**2, found["weight"].variance)
        if "bias" in found:
            variance = variance + found["bias"].variance
        if local:
            outputs = clone(inputs.repeat(n, 1)).reshape(n, 7, 3)
        else:
            drawn = [found["weight"].sample() for _ in range(n)]
            biases = [found["bias"].sample() if "bias" in found else model.bias for _ in range(n)]
            pairs = zip(drawn, biases, strict=True)
            outputs = torch.stack([F.linear(inputs, weight, bias) for weight, bias in pairs])
        assert torch.allclose(outputs.mean(0), model(inputs), atol=0.1)
        assert torch.allclose(outputs.var(0), variance, rtol=0.12)


def test_local_noise_is_felt_by_deviations_and_goes_on_settling():
    model, inputs, targets = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with attach(NoisyWeights(20, lambda _: 0.0, initial=-2.0, local=True), model, optimizer) as attached:
        before = model.weight.detach().clone()
        F.mse_loss(model(inputs), F.one_hot(targets).double()).backward()
        optimizer.step()
        assert attached.state["trained"]["weight"].grad.abs().min() > 0
        assert torch.equal(model.weight, before), "the parameters are the means"
        noisy = model(inputs)
        with attached.deterministic():
            assert torch.equal(model(inputs), F.linear(inputs, model.weight, model.bias))
        assert not torch.equal(model(inputs), noisy), "each pass has noise of its own"
        assert torch.equal(copy.deepcopy(model)(inputs), F.linear(inputs, model.weight, model.bias))
    assert torch.equal(model(inputs), F.linear(inputs, model.weight, model.bias))


def test_expected_gradients_of_both_ways_agree():
    """For a squared error E[∂/∂log σ²] = σ²·Σ x²/n, however it is drawn."""
    model, inputs, _ = problem()
    targets = torch.zeros(7, 3).double()
    expected = (torch.exp(torch.tensor(-2.0)) * (inputs**2).mean(0) / 3).expand(3, 5)
    for local in (False, True):
        clone = copy.deepcopy(model)
        optimizer = torch.optim.SGD(clone.parameters(), lr=0.0)
        found = []
        rule = NoisyWeights(20, lambda _: 0.0, initial=-2.0, local=local)
        with attach(rule, clone, optimizer) as attached:
            for _ in range(400):
                optimizer.zero_grad()
                F.mse_loss(clone(inputs), targets).backward()
                optimizer.step()
                found.append(attached.state["trained"]["weight"].grad.clone())
        found = torch.stack(found)
        error = found.std(0) / len(found) ** 0.5
        assert ((found.mean(0) - expected).abs() < 5 * error).all()


def test_convolutions_draw_locally_and_other_layers_are_refused():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Flatten())
    inputs = torch.randn(1, 2, 4, 4)
    plain = model(inputs)
    with attach(
        NoisyWeights(20, at_once, initial=-3.0, local=True), model, torch.optim.SGD(model.parameters(), lr=0.1)
    ):
        outputs = model(inputs.expand(8000, -1, -1, -1))
        squares = F.pad(inputs**2, (1, 1, 1, 1), mode="circular")
        variance = F.conv2d(squares, torch.full((3, 2, 3, 3), -3.0).exp()).flatten(1)
    assert torch.allclose(outputs.mean(0), plain[0], atol=0.1)
    assert torch.allclose(outputs.var(0), variance[0], rtol=0.1)
    embedding = nn.Sequential(nn.Linear(2, 2), nn.Embedding(3, 2))
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with pytest.raises(UnsupportedError, match=r"1\.weight: local noise.*Embedding"):
        attach(NoisyWeights(20, at_once, local=True), embedding, optimizer)
    assert not embedding[0]._forward_hooks
    assert len(optimizer.param_groups) == 1, "nothing was begun"


def test_a_prior_for_all_or_for_each():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    for scope, n_priors in ((laconic.pruning.scopes.Global(), 1), (laconic.pruning.scopes.PerTensor(), 2)):
        rule = NoisyWeights(20, at_once, scope=scope)
        with attach(rule, model, torch.optim.SGD(model.parameters(), lr=0.1)) as attached:
            priors = rule.priors(attached.state)
            assert set(priors) == set(rule.posterior(attached.state)) == {"0.weight", "1.weight"}
            assert len({id(prior) for prior in priors.values()}) == n_priors


def test_weights_that_the_data_do_not_need_become_cheap():
    rule = NoisyWeights(256, at_once, initial=-4.0, local=True)
    with fitted_to_two_of_eight_inputs(rule, 300, loss_weight=10) as (model, attached, _):
        found = rule.posterior(attached.state)["weight"]
        nats = rule.priors(attached.state)["weight"].nats(found)[0]
    assert nats[:2].min() > 3 * nats[2:].max()
    assert model.weight[0, :2].tolist() == pytest.approx([1, 1], abs=0.1)


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
