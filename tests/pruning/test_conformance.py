"""Every member of every axis, and their combinations, keep the same promises.

A new criterion, unit, scope or budget is one entry in the lists below.
"""

import copy
import itertools

import pytest
import torch
from torch import nn

import laconic
from laconic import Density, Model, Tensor, Weight, magnitude, select

CRITERIA = [magnitude]
UNITS = [Weight()]
SCOPES = [Model(), Tensor()]
BUDGETS = [Density(fraction) for fraction in (0, 0.037, 0.5, 0.9, 1)]
COMBINATIONS = list(itertools.product(CRITERIA, UNITS, SCOPES, BUDGETS))


def label(value):
    """Without a function's address, by which workers would disagree on the tests' names."""
    return getattr(value, "__name__", str(value))


combined = pytest.mark.parametrize(("criterion", "unit", "scope", "budget"), COMBINATIONS, ids=label)


def weights(kind):
    shapes = {"a": (30, 20), "b": (7, 3, 3, 3), "empty": (0, 4), "c": (11,)}
    fill = {"normal": torch.randn, "equal": torch.ones, "ties": lambda s: torch.randn(s).round()}[kind]
    return {name: fill(shape) for name, shape in shapes.items()}


def expected_counts(scope, budget, tensors):
    return {
        names: budget.n_kept(sum(tensors[n].numel() for n in names))
        for names in map(tuple, scope.contests(tensors))
    }


@combined
@pytest.mark.parametrize("kind", ["normal", "equal", "ties"])
def test_counts_are_exact_and_reruns_agree(criterion, unit, scope, budget, kind):
    tensors = weights(kind)
    mask = select(criterion(tensors), budget, scope, unit)
    for names, n_kept in expected_counts(scope, budget, tensors).items():
        assert sum(int(mask[n].sum()) for n in names) == n_kept
    again = select(criterion(copy.deepcopy(tensors)), budget, scope, unit)
    assert all(torch.equal(mask[n], again[n]) for n in tensors)
    assert {n: t.shape for n, t in mask.items()} == {n: t.shape for n, t in tensors.items()}


@combined
def test_winners_have_no_lower_score_than_losers(criterion, unit, scope, budget):
    tensors = weights("ties")
    lost = criterion(tensors)
    mask = select(lost, budget, scope, unit)
    for names in scope.contests(tensors):
        scores = torch.cat([lost[n].flatten() for n in names])
        kept = torch.cat([mask[n].flatten() for n in names])
        order = torch.sort(scores, descending=True, stable=True).indices
        assert torch.equal(order[: int(kept.sum())].sort().values, kept.nonzero().squeeze(1)), (
            "ties: lower index"
        )


@combined
def test_a_model_is_pruned_held_and_saved(criterion, unit, scope, budget, tmp_path):
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    model[2].weight = model[0].weight if model[0].weight.shape == model[2].weight.shape else model[2].weight
    pruner = laconic.Pruner(criterion, scope, unit)
    mask = laconic.prune_(model, 1 - budget.fraction, pruner)
    assert mask.numel == 12 * 8 + 8 * 8 + 8 * 4
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    compiled = copy.deepcopy(model)
    with laconic.hold(mask, model, optimizer):
        for _ in range(3):
            model(torch.randn(5, 12)).square().sum().backward()
            optimizer.step()
    for name, parameter in laconic.tensors(model).items():
        assert not parameter[~mask[name]].any()
    assert set(compiled.state_dict()) == set(model.state_dict())
    laconic.save(model, tmp_path / "m.lac")
    back = laconic.load(tmp_path / "m.lac")
    assert all(not back[n][~mask[n]].any() for n in mask), "zeros are exact in the file"


@pytest.mark.parametrize("criterion", CRITERIA)
def test_criteria_score_each_weight_and_leave_it_alone(criterion):
    tensors = weights("normal")
    before = copy.deepcopy(tensors)
    lost = criterion(tensors)
    assert {n: t.shape for n, t in lost.items()} == {n: t.shape for n, t in tensors.items()}
    assert all(torch.equal(before[n], tensors[n]) for n in tensors)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_densities_outside_0_and_1_are_refused(bad):
    with pytest.raises(ValueError, match="expected a fraction"):
        Density(bad)
