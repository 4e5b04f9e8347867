import itertools

import pytest
import torch
from torch import nn

import laconic
from laconic.training import Schedule
from laconic.training.schedules import geometric


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
