import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from laconic import attach
from laconic.pruning.units import Block, Weight
from laconic.training import Gates
from laconic.training.gates import gate, open_probability, settled_gate
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
