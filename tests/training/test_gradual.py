import copy
import itertools

import pytest
import torch
from torch import nn

import laconic
from laconic import attach
from laconic.model import Evidence
from laconic.pruning import Pruner
from laconic.surgery.plan import Coupling, Group, Part
from laconic.training import Gradual, Schedule
from laconic.training.gradual import what_is_left
from laconic.training.schedules import linear, one_shot


def stepped(model, optimizer, n, inputs=None):
    for _ in range(n):
        optimizer.zero_grad()
        model(torch.randn(16, 6) if inputs is None else inputs).square().mean().backward()
        optimizer.step()


def test_movement_is_what_weights_and_gradients_add_up_to():
    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    expected = torch.zeros(4, 6)
    rule = Gradual(Schedule(0.5, end=8, curve=one_shot), 8, Pruner(laconic.pruning.criteria.movement))
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
    rule = Gradual(Schedule(0.5, end=1, curve=one_shot), 1, Pruner(laconic.pruning.criteria.taylor))
    with attach(rule, model, optimizer) as attached:
        weight = model.weight.detach().clone()
        stepped(model, optimizer, 1)
        products = (weight * model.weight.grad).abs()
    assert torch.equal(attached.mask["weight"], products >= products.flatten().sort().values[12])


def test_it_asks_for_evidence_at_each_pruning():
    seen = []

    def observe(model):
        seen.append(laconic.model.compressible(model)["weight"].count_nonzero().item())
        return laconic.model.observe(
            model, [(torch.randn(8, 6), torch.zeros(8).long())], laconic.pruning.criteria.fisher.needs
        )

    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(
        Gradual(Schedule(0.5, end=6), 3, Pruner(laconic.pruning.criteria.fisher), observe), model, optimizer
    ) as attached:
        stepped(model, optimizer, 9)
    assert seen == [24, 24, 14], "at the beginning, and at steps 3 and 6"
    assert attached.mask.n_kept == 12


def test_evidence_that_no_gradient_gives_must_be_observed():
    model = nn.Linear(6, 4)
    rule = Gradual(Schedule(0.5, end=6), pruner=Pruner(laconic.pruning.criteria.fisher))
    with pytest.raises(laconic.errors.UnsupportedError, match="needs FISHER.*observe="):
        attach(rule, model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_n_of_m_in_training():
    model = nn.Linear(8, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    pruner = Pruner(scope=laconic.pruning.scopes.NM(4))
    with attach(Gradual(Schedule(0.5, end=6, curve=linear), 3, pruner), model, optimizer) as attached:
        stepped(model, optimizer, 3, torch.randn(16, 8))
        assert (attached.mask["weight"].view(-1, 4).sum(1) == 3).all()
        stepped(model, optimizer, 6, torch.randn(16, 8))
    assert (attached.mask["weight"].view(-1, 4).sum(1) == 2).all()
    assert (model.weight.view(-1, 4).count_nonzero(1) == 2).all()


@pytest.mark.parametrize(
    "unit", [laconic.pruning.units.Weight(), laconic.pruning.units.Block(1, None), laconic.pruning.units.Block(2, 2)]
)
def test_what_is_gone_comes_last_also_among_negative_scores(unit):
    @laconic.pruning.criteria.criterion()
    def negative(weights, evidence=None):
        return {name: -torch.ones_like(weight) - weight for name, weight in weights.items()}

    del laconic.pruning.criteria.CRITERIA["negative"]
    weights = {"a": torch.randn(4, 6).abs(), "b": torch.zeros(4, 6)}
    members = unit.pool(weights)
    kept = {name: torch.arange(m.numel()).view(m.shape) % 2 == 0 for name, m in members.items()}
    left = laconic.pruning.Mask(unit.spread(kept, weights))
    lost = unit.pool(what_is_left(negative, left)(weights, Evidence()))
    worst = min(float(lost[name][kept[name]].min()) for name in lost)
    assert all((lost[name][~kept[name]] < worst).all() for name in lost)


def test_what_stays_may_make_up_for_what_goes():
    torch.manual_seed(1)
    start = nn.Linear(8, 4)
    inputs = torch.randn(64, 8) @ torch.randn(8, 8)
    lost = {}
    for solver in (laconic.pruning.solvers.Cut(), laconic.pruning.solvers.LeastSquares()):
        model = copy.deepcopy(start)
        pruner = Pruner(solver=solver)
        batches = [(inputs, torch.zeros(64).long())]
        rule = Gradual(
            Schedule(0.5, end=0), 5, pruner, lambda m, b=batches, p=pruner: laconic.model.observe(m, b, p.needs)
        )
        with attach(rule, model, torch.optim.SGD(model.parameters(), lr=0.1)) as attached:
            assert attached.mask.n_kept == model.weight.count_nonzero() == 16
        lost[type(solver)] = (model(inputs) - start(inputs)).square().sum().item()
    assert lost[laconic.pruning.solvers.LeastSquares] < 0.9 * lost[laconic.pruning.solvers.Cut]


def test_channels_go_step_by_step():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    units = torch.arange(8)[:, None]
    parts = (Part("0.weight", 0, units), Part("0.bias", 0, units), Part("2.weight", 1, units))
    coupled = laconic.pruning.units.Coupled(Coupling((Group("0", parts),), {}))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    alive = []
    with attach(Gradual(Schedule(0.5, end=8, curve=linear), 2, Pruner(unit=coupled)), model, optimizer):
        for _ in range(5):
            alive.append(set((model[0].weight != 0).any(1).nonzero().flatten().tolist()))
            stepped(model, optimizer, 2)
    assert all(after <= before for before, after in itertools.pairwise(alive))
    assert len(alive[0]) == 8
    assert 3 <= len(alive[-1]) <= 5
    assert not model[0].bias[(model[0].weight == 0).all(1)].any()
