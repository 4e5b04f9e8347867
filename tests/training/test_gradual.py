import pytest
import torch
from torch import nn

import laconic
from laconic import Count, Evidence, Gradual, Pruner, Schedule, attach, one_shot
from laconic.training.gradual import only_left


def stepped(model, optimizer, n, inputs=None):
    for _ in range(n):
        optimizer.zero_grad()
        model(torch.randn(16, 6) if inputs is None else inputs).square().mean().backward()
        optimizer.step()


def test_movement_is_what_weights_and_gradients_add_up_to():
    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    expected = torch.zeros(4, 6)
    rule = Gradual(Schedule(0.5, end=8, curve=one_shot), 8, Pruner(laconic.movement))
    with attach(rule, model, optimizer) as attached:
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.randn(16, 6)).square().mean().backward()
            expected -= model.weight.detach() * model.weight.grad
            assert attached.mask.sparsity == 0
            optimizer.step()
    assert torch.allclose(attached.state["movement"]["weight"], expected)
    threshold = expected.flatten().sort().values[12]
    assert torch.equal(attached.mask["weight"], expected >= threshold)


def test_gradients_are_those_of_the_weights_they_judge():
    model = nn.Linear(6, 4, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    rule = Gradual(Schedule(0.5, end=1, curve=one_shot), 1, Pruner(laconic.taylor))
    with attach(rule, model, optimizer) as attached:
        weight = model.weight.detach().clone()
        stepped(model, optimizer, 1)
        products = (weight * model.weight.grad).abs()
    assert torch.equal(attached.mask["weight"], products >= products.flatten().sort().values[12])


def test_it_asks_for_evidence_at_each_pruning():
    seen = []

    def observe(model):
        seen.append(laconic.tensors(model)["weight"].count_nonzero().item())
        return laconic.observe(model, [(torch.randn(8, 6), torch.zeros(8).long())], laconic.fisher.needs)

    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(
        Gradual(Schedule(0.5, end=6), 3, Pruner(laconic.fisher), observe), model, optimizer
    ) as attached:
        stepped(model, optimizer, 9)
    assert seen == [24, 24, 14], "at the beginning, and at steps 3 and 6"
    assert attached.mask.n_kept == 12


def test_evidence_that_no_gradient_gives_must_be_observed():
    model = nn.Linear(6, 4)
    rule = Gradual(Schedule(0.5, end=6), pruner=Pruner(laconic.fisher))
    with pytest.raises(laconic.UnsupportedError, match="needs FISHER.*observe="):
        attach(rule, model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_n_of_m_in_training():
    model = nn.Linear(8, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    rule = Gradual(Schedule(0.5, end=6), 2, Pruner(scope=laconic.Run(4), budget=Count(2)))
    with attach(rule, model, optimizer) as attached:
        stepped(model, optimizer, 9, torch.randn(16, 8))
    assert (attached.mask["weight"].view(-1, 4).sum(1) == 2).all()
    assert (model.weight.view(-1, 4).count_nonzero(1) == 2).all()


@pytest.mark.parametrize("unit", [laconic.Weight(), laconic.Block(1, None), laconic.Block(2, 2)])
def test_what_is_gone_comes_last_also_among_negative_scores(unit):
    @laconic.criterion()
    def negative(weights, evidence=None):
        return {name: -torch.ones_like(weight) - weight for name, weight in weights.items()}

    weights = {"a": torch.randn(4, 6).abs(), "b": torch.zeros(4, 6)}
    members = unit.pool(weights)
    kept = {name: torch.arange(m.numel()).view(m.shape) % 2 == 0 for name, m in members.items()}
    left = laconic.Mask(unit.spread(kept, weights))
    lost = unit.pool(only_left(Pruner(negative, unit=unit), left).criterion(weights, Evidence()))
    worst = min(float(lost[name][kept[name]].min()) for name in lost)
    assert all((lost[name][~kept[name]] < worst).all() for name in lost)
