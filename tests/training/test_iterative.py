from __future__ import annotations

import copy
import itertools
import os
import signal

import pytest
import torch
from torch import nn

import laconic
from laconic import Training, attach, train
from laconic.datasets import blobs
from laconic.model import Evidence
from laconic.pruning import Mask, Pruner
from laconic.surgery.plan import Coupling, Group, Part
from laconic.training import Gradual, Hold, Schedule, Snapshot, reinitialize_, shuffled
from laconic.training.iterative import what_is_left
from laconic.training.schedules import geometric, linear, one_shot


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


def test_rounds_reach_the_schedule_and_nest():
    model = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 10))
    tuned = []
    rounds = list(
        laconic.training.prune_iteratively_(
            model,
            Schedule(0.95, 5, geometric, initial=0.5),
            lambda net, mask: tuned.append((net is model, mask.sparsity)),
        )
    )
    assert [done.number for done in rounds] == [1, 2, 3, 4, 5]
    assert [done.mask.sparsity for done in rounds] == pytest.approx([done.sparsity for done in rounds], abs=1e-3)
    assert rounds[-1].sparsity == 0.95
    assert tuned == [(True, done.mask.sparsity) for done in rounds]
    for before, after in itertools.pairwise(rounds):
        assert all(not (after.mask[n] & ~before.mask[n]).any() for n in after.mask)


def test_solvers_repair_each_round():
    model = nn.Linear(8, 4)
    inputs = torch.randn(64, 8) @ torch.randn(8, 8)
    before, pruner = (
        model.weight.detach().clone(),
        laconic.pruning.Pruner(solver=laconic.pruning.solvers.LeastSquares()),
    )

    def observe(model):
        return laconic.model.observe(model, [(inputs, torch.zeros(64).long())], pruner.needs)

    (*_, last) = laconic.training.prune_iteratively_(model, Schedule(0.5, 2), lambda *_: None, pruner, observe=observe)
    kept = last.mask["weight"]
    assert not model.weight[~kept].any()
    assert (model.weight != before)[kept].all(), "what stays makes up for what went"


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 3))


def trained(model, callbacks=(), rules=(), checkpoint=None):
    train(model, blobs().train.batches(100, shuffle=True), Training(2), rules, callbacks, checkpoint)
    return model


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_snapshot_is_the_state_after_its_step(tmp_path):
    expected = {}

    def copy(progress):
        if progress.step == 5:
            expected.update({name: t.clone() for name, t in progress.model.state_dict().items()})

    snapshot = Snapshot(tmp_path / "s", 5)
    with pytest.raises(FileNotFoundError):
        snapshot.state  # noqa: B018
    trained(net(), [copy, snapshot])
    assert same(snapshot.state, expected)
    with pytest.raises(ValueError, match="from 1"):
        Snapshot(tmp_path / "s", 0)


@pytest.mark.parametrize("step", [3, 12])
def test_a_snapshot_survives_an_interruption(step, tmp_path):
    def interrupt(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    whole, resumed = (Snapshot(tmp_path / name, 5) for name in "ab")
    trained(net(), [whole])
    with pytest.raises(KeyboardInterrupt):
        trained(net(), [resumed, interrupt], checkpoint=tmp_path / "c")
    trained(net(), [resumed], checkpoint=tmp_path / "c")
    assert same(whole.state, resumed.state)


def test_rounds_rewind_what_stays(tmp_path):
    snapshot = Snapshot(tmp_path / "s", 5)
    model = trained(net(), [snapshot])
    early, begun, before = snapshot.state, [], {"model": None}

    def fine_tune(model, mask):
        begun.append(mask)
        for name, value in model.state_dict().items():
            expected = early[name] * mask[name] if name in mask else early[name]
            assert torch.equal(value, expected), name
        trained(model, rules=[Hold(mask)])
        before["model"] = {name: t.detach().abs() for name, t in laconic.model.compressible(model).items()}

    final = {name: t.detach().abs().clone() for name, t in laconic.model.compressible(model).items()}
    rounds = list(laconic.training.prune_iteratively_(model, Schedule(0.6, 3, geometric), fine_tune, rewind=early))
    assert [done.mask.sparsity for done in rounds] == pytest.approx([done.sparsity for done in rounds], abs=1e-3)
    kept = torch.cat([final[n][k] for n, k in begun[0].items()])
    gone = torch.cat([final[n][~k] for n, k in begun[0].items()])
    assert kept.min() >= gone.max(), "the trained weights decide, not the early ones"


def test_finished_rounds_are_not_repeated(tmp_path):
    def run(fail_in=None):
        model, tuned = trained(net()), []

        def fine_tune(model, mask):
            tuned.append(mask.n_kept)
            if len(tuned) == fail_in:
                raise KeyboardInterrupt
            trained(model, rules=[Hold(mask)])

        rounds = list(laconic.training.prune_iteratively_(model, Schedule(0.6, 3, geometric), fine_tune, folder=folder))
        return model.state_dict(), rounds, len(tuned)

    folder = tmp_path / "whole"
    expected, whole, _ = run()
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        run(fail_in=3)
    found, rounds, n_tuned = run()
    assert n_tuned == 1
    assert same(expected, found)
    assert all(same(a.mask, b.mask) for a, b in zip(whole, rounds, strict=True))
    assert run()[2] == 0


def test_evidence_is_gathered_anew_in_each_round():
    model, seen = net(), []

    def observe(model):
        seen.append(laconic.model.compressible(model)["0.weight"].count_nonzero().item())
        return laconic.model.observe(model, blobs().train.batches(100), laconic.pruning.criteria.taylor.needs)

    pruner = laconic.pruning.Pruner(laconic.pruning.criteria.taylor, scope=laconic.pruning.scopes.PerTensor())
    list(laconic.training.prune_iteratively_(model, Schedule(0.5, 2), lambda *_: None, pruner, observe=observe))
    assert seen == [600, 600 - round(0.4375 * 600)]


def test_shuffling_keeps_each_tensors_count():
    mask = Mask({"a": torch.rand(50, 20) < 0.1, "b": torch.rand(7) < 0.5, "none": torch.zeros(0, 4).bool()})
    other = shuffled(mask, 1)
    for name in mask:
        assert other[name].shape == mask[name].shape
        assert int(other[name].sum()) == int(mask[name].sum())
    assert not torch.equal(other["a"], mask["a"])
    assert same(other, shuffled(mask, 1))
    assert not same(other, shuffled(mask, 2))


def test_fresh_weights_are_those_of_the_layers_and_the_seed():
    model, other = net(), trained(net())
    state = torch.get_rng_state()
    reinitialize_(model, 4)
    reinitialize_(other, 4)
    assert torch.equal(state, torch.get_rng_state())
    assert same(model.state_dict(), other.state_dict()), "running means too"
    torch.manual_seed(4)
    assert torch.equal(model[0].weight, nn.Linear(20, 30).weight)


def test_parameters_that_no_layer_initialises_are_refused():
    model = nn.Sequential(nn.Linear(3, 3))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    before = model[0].weight.clone()
    with pytest.raises(laconic.errors.UnsupportedError, match="Sequential has parameters and no reset_parameters"):
        reinitialize_(model)
    assert torch.equal(before, model[0].weight)
