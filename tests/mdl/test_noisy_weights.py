import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import laconic
from laconic import attach
from laconic.errors import UnsupportedError
from laconic.mdl import Gaussian, NoisyWeights
from laconic.model.selectors import compressible
from tests.support.nets import fitted_to_two_of_eight_inputs

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
