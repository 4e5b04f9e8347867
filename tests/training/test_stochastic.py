from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from laconic import attach
from laconic.pruning.units import Block, Weight
from laconic.training import Gates, Schedule, VariationalDropout
from laconic.training.schedules import one_shot
from laconic.training.stochastic import gate, kl_nats, log_alphas, open_probability, settled_gate
from tests.support.nets import fitted_to_two_of_eight_inputs


def test_the_gates_formulas():
    log_alpha = torch.linspace(-4, 4, 9)
    half = gate(log_alpha, torch.full((9,), 0.5))  # log u − log(1 − u) = 0
    stretched = torch.sigmoid(log_alpha / (2 / 3)) * 1.2 - 0.1
    assert torch.allclose(half, stretched.clamp(0, 1))
    assert torch.allclose(settled_gate(log_alpha), (torch.sigmoid(log_alpha) * 1.2 - 0.1).clamp(0, 1))
    assert settled_gate(torch.tensor(-2.4)) == 0  # σ(−2.4) < 1/12: exactly zero
    assert settled_gate(torch.tensor(2.4)) == 1


@pytest.mark.parametrize("log_alpha", [-3.0, -1.0, 0.0, 2.0])
def test_the_chance_of_an_open_gate(log_alpha):
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    found = float((gate(torch.tensor(log_alpha), u) != 0).float().mean())
    expected = float(open_probability(torch.tensor(log_alpha)))
    assert expected == pytest.approx(1 / (1 + math.exp(2 / 3 * math.log(0.1 / 1.1) - log_alpha)))
    assert found == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("unit", [Weight(), Block(None, 1), Block(1, None), Block(2, 3)])
def test_gradients_are_those_of_the_loss_with_its_penalty(unit):
    """Against central differences of loss(θz) + price/n Σ P(z ≠ 0), with the same noise."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    inputs, targets = torch.randn(7, 5).double(), torch.randint(0, 3, (7,))
    rule = Gates(3.0, 10, unit, dropped=0.4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    attached = attach(rule, model, optimizer)
    means = {n: m.clone() for n, m in attached.state["means"].items()}
    trained = {n: t.detach().clone() for n, t in attached.state["trained"].items()}
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()

    def objective():
        weights = rule.sample({"means": means, "trained": trained}, step=0)
        for name, weight in weights.items():
            model.get_parameter(name).data.copy_(weight)
        chances = unit.spread({n: open_probability(t) for n, t in trained.items()}, means)
        n_expected = sum(float(chance.sum()) for chance in chances.values())
        with torch.no_grad():
            return float(F.cross_entropy(model(inputs), targets)) + 3.0 / 10 * n_expected

    for name, weight in means.items():
        found = [(weight, model.get_parameter(name).grad), (trained[name], attached.state["trained"][name].grad)]
        for value, gradient in found:
            for i in range(0, value.numel(), 3):
                flat = value.view(-1)
                flat[i] += 1e-6
                above = objective()
                flat[i] -= 2e-6
                below = objective()
                flat[i] += 1e-6
                assert float(gradient.reshape(-1)[i]) == pytest.approx((above - below) / 2e-6, abs=1e-6)


def test_the_optimizer_moves_the_plain_weights_and_the_model_holds_a_sample():
    model = nn.Linear(6, 5, bias=False)
    start = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rule = Gates(0.0, 1, dropped=0.5)
    attached = attach(rule, model, optimizer)
    assert (model.weight == 0).any(), "some gates are closed"
    drawn = model.weight.detach().clone()
    model.weight.sum().backward()
    optimizer.step()
    open_gates = drawn / start
    assert torch.allclose(attached.state["means"]["weight"], start - 0.1 * open_gates, atol=1e-6)
    assert not torch.equal(model.weight, drawn), "a new sample for the next step"


def test_what_costs_more_than_it_brings_goes():
    with fitted_to_two_of_eight_inputs(Gates(3.0, 256, lr=0.1), 400) as (_, attached, loss):
        pass
    assert attached.mask["weight"].tolist() == [[True, True] + [False] * 6]
    assert loss() < 0.05


@pytest.mark.parametrize("dropped", [0.0, 1.0, math.nan])
def test_impossible_fractions_are_refused(dropped):
    with pytest.raises(ValueError, match="dropped: expected a fraction"):
        Gates(1.0, 10, dropped=dropped)


def test_the_rule_draws_by_seed_and_step():
    means, trained = {"weight": torch.ones(5, 6)}, {"weight": torch.zeros(5, 6)}
    rule = Gates(1.0, 10, seed=4)
    first = rule.sample({"means": means, "trained": trained}, 7)["weight"]
    assert torch.equal(first, rule.sample({"means": means, "trained": trained}, 7)["weight"])
    assert not torch.equal(first, rule.sample({"means": means, "trained": trained}, 8)["weight"])
    assert not torch.equal(first, Gates(1.0, 10, seed=5).sample({"means": means, "trained": trained}, 7)["weight"])


AT_ONCE = Schedule(1, end=0, curve=one_shot)


def test_the_divergence_is_the_integral_it_stands_for():
    """KL = E[log|1 + √α ε|] − ½ log α + C (Kingma et al. 2015), with C such that it is 0 at α = ∞."""
    epsilon = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(400_000).double() + 0.5) / 400_000)
    for log_alpha in (-6.0, -2.0, 0.0, 1.0, 3.0):
        alpha = torch.tensor(log_alpha).double().exp()
        mean = torch.log((1 + alpha.sqrt() * epsilon).abs()).mean() - 0.5 * log_alpha
        limit = torch.log(epsilon.abs()).mean()
        assert float(kl_nats(torch.tensor(log_alpha))) == pytest.approx(float(mean - limit), abs=0.01)


def test_gradients_are_those_of_the_bound():
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    inputs, targets = torch.randn(7, 5).double(), torch.randint(0, 3, (7,))
    rule = VariationalDropout(20, AT_ONCE, initial=-2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    attached = attach(rule, model, optimizer)
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    theta = attached.state["means"]["weight"].clone().requires_grad_()
    log_variance = torch.full((3, 5), -2.0).double().requires_grad_()
    noise = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))  # seed 0, step 0
    drawn = theta + torch.exp(log_variance / 2) * noise
    nats = kl_nats(log_variance - torch.log(theta**2)).sum()
    loss = F.cross_entropy(F.linear(inputs, drawn, model.bias), targets) + nats / 20
    expected = torch.autograd.grad(loss, [theta, log_variance])
    assert torch.allclose(model.weight.grad, expected[0])
    assert torch.allclose(attached.state["trained"]["weight"].grad, expected[1])


def test_pairs_of_steps_share_a_draw_with_opposite_signs():
    rule = VariationalDropout(20, AT_ONCE)
    means, trained = {"w": torch.zeros(4, 4)}, {"w": torch.zeros(4, 4)}
    drawn = [rule.sample({"means": means, "trained": trained}, step)["w"] for step in range(4)]
    assert torch.equal(drawn[0], -drawn[1])
    assert torch.equal(drawn[2], -drawn[3])
    assert not torch.equal(drawn[0], drawn[2])


def test_weights_of_pure_noise_go():
    rule = VariationalDropout(20, AT_ONCE)
    means = {"w": torch.tensor([1.0, 0.1, 0.0])}
    trained = {"w": torch.zeros(3)}  # log α = 0, 4.6, ∞
    assert log_alphas(means, trained)["w"][:2].tolist() == pytest.approx([0, 4.605], abs=1e-3)
    assert rule.deterministic({"means": means, "trained": trained})["w"].tolist() == [1, 0, 0]


def test_what_the_data_do_not_need_becomes_noise():
    rule = VariationalDropout(256, AT_ONCE, initial=-4.0)
    with fitted_to_two_of_eight_inputs(rule, 600, loss_weight=10) as (_, attached, _):
        pass
    assert attached.mask["weight"].tolist() == [[True, True] + [False] * 6]
