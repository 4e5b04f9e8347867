"""What stays makes up for what goes: as well as can be, or nearly."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import laconic
from laconic.model.evidence import GRAM
from laconic.pruning.solvers import Cut, LeastSquares, SparseGPT
from tests.support.nets import net_and_evidence

AMOUNT = 0.6


def correlated(n=400, d=24):
    torch.manual_seed(0)
    return torch.randn(n, d) @ torch.randn(d, d) * torch.linspace(0.1, 2, d)


def output_error(before, after, inputs):
    with torch.no_grad():
        return float((before(inputs) - after(inputs)).square().sum() / before(inputs).square().sum())


def pruned(layer, inputs, solver, criterion=laconic.pruning.criteria.magnitude, **axes):
    evidence = laconic.model.observe(layer, [(inputs, torch.zeros(len(inputs), dtype=torch.long))], [GRAM])
    after = copy.deepcopy(layer)
    mask = laconic.prune_(after, AMOUNT, criterion, solver=solver, data=evidence, **axes)
    return after, mask


def test_least_squares_is_the_best_that_the_mask_allows():
    inputs, layer = correlated(), nn.Linear(24, 10, bias=False)
    after, mask = pruned(layer, inputs, LeastSquares(damping=0.0))
    for row, kept, before in zip(after.weight, mask["weight"], layer.weight, strict=True):
        best = torch.linalg.lstsq(inputs[:, kept], (inputs @ before)[:, None]).solution.squeeze(1)
        assert torch.allclose(row[kept], best, atol=1e-3)


@pytest.mark.parametrize("unit", [laconic.pruning.units.Weight(), laconic.pruning.units.Block(2, 2)], ids=str)
@pytest.mark.parametrize(
    "scope",
    [laconic.pruning.scopes.PerTensor(), laconic.pruning.scopes.PerRow(), laconic.pruning.scopes.NM(4)],
    ids=str,
)
def test_repair_beats_cutting_and_the_surgeon_beats_magnitude(unit, scope):
    inputs, layer = correlated(), nn.Linear(24, 16)
    if isinstance(scope, laconic.pruning.scopes.NM) and unit != laconic.pruning.units.Weight():
        scope = laconic.pruning.scopes.PerRow()
    errors = {
        (solver, criterion): output_error(
            layer, pruned(layer, inputs, solver, criterion, unit=unit, scope=scope)[0], inputs
        )
        for solver in (Cut(), LeastSquares(), SparseGPT(columns=4))
        for criterion in (laconic.pruning.criteria.magnitude, laconic.pruning.criteria.output_error)
    }
    by_magnitude = {type(s).__name__: e for (s, c), e in errors.items() if c is laconic.pruning.criteria.magnitude}
    assert by_magnitude["LeastSquares"] < by_magnitude["Cut"]
    assert by_magnitude["SparseGPT"] < by_magnitude["Cut"]
    if unit == laconic.pruning.units.Weight():
        assert errors[LeastSquares(), laconic.pruning.criteria.output_error] < by_magnitude["LeastSquares"]


def test_sparse_gpt_is_the_surgeon_on_one_column_at_a_time():
    """With one stretch and a mask that is forced, the sweep's later columns are those of algorithm 1."""
    inputs, layer = correlated(d=6), nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([1e-4, 1, 1, 1, 1, 1])
    evidence = laconic.model.observe(layer, [(inputs, torch.zeros(400, dtype=torch.long))], [GRAM])
    after = copy.deepcopy(layer)
    laconic.prune_(after, 1 / 6, solver=SparseGPT(columns=6), data=evidence)
    assert not after.weight[0, 0]
    best = torch.linalg.lstsq(inputs[:, 1:], inputs @ layer.weight[0]).solution
    assert torch.allclose(after.weight[0, 1:], best, atol=1e-4)


@pytest.mark.parametrize("solver", [LeastSquares(), SparseGPT(columns=36), SparseGPT(columns=1)], ids=str)
def test_convolutions_and_groups_are_repaired_through_their_patches(solver):
    model, _, batches = net_and_evidence()
    batches = [(x.cumsum(2).cumsum(3), y) for x, y in batches]  # neighbours look alike
    evidence = laconic.model.observe(model, batches, [GRAM])
    only = partial(laconic.model.compressible, include=["grouped", "conv1"])
    errors = {}
    for name, how in {"cut": Cut(), "repaired": solver}.items():
        after = copy.deepcopy(model)
        scope = laconic.pruning.scopes.PerTensor()
        mask = laconic.prune_(after, AMOUNT, scope=scope, solver=how, data=evidence, parameters=only)
        assert [int(m.sum()) for m in mask.values()] == [round(0.4 * m.numel()) for m in mask.values()]
        inputs = torch.cat([x for x, _ in batches])
        before = model.eval().grouped(inputs)
        errors[name] = float((before - after.grouped(inputs)).square().sum().detach())
    assert errors["repaired"] < 0.9 * errors["cut"]


def test_batch_norms_are_measured_anew_and_nothing_else():
    model = copy.deepcopy(net_and_evidence()[0]).train()
    batches = net_and_evidence()[2]
    momentum, keys = model.bn.momentum, dict(model.named_parameters())
    before = {name: parameter.clone() for name, parameter in keys.items()}
    laconic.surgery.reestimate_batch_norm_(model, batches)
    with torch.no_grad():
        inputs = [model.conv1(model.grouped(x)) for x, _ in batches]
    mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    assert torch.allclose(model.bn.running_mean, mean, atol=1e-5)
    assert model.bn.momentum == momentum
    assert model.training
    assert all(torch.equal(before[name], parameter) for name, parameter in keys.items())
    laconic.surgery.reestimate_batch_norm_(nn.Linear(2, 2), [])  # none to measure
