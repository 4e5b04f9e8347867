import json
from functools import partial

import pytest
import torch
from torch import nn

import laconic
from laconic.pruning import Scan, scan
from tests.support.nets import COUPLING, Net, net_and_evidence

AMOUNTS = (0.25, 0.5, 1.0)


def n_zeros(model):
    return float(sum((p == 0).sum() for p in laconic.model.compressible(model).values()))


def test_each_tensor_is_pruned_alone_and_the_model_is_untouched():
    model, _, _ = net_and_evidence()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen = []
    found = scan(model, AMOUNTS, n_zeros, progress=lambda done, of: seen.append((done, of)))
    weights = laconic.model.compressible(model)
    assert found.names == tuple(weights)  # the tied one once
    assert found.dense == 0
    for name, row in zip(found.names, found.values, strict=True):
        assert list(row) == [round(amount * weights[name].numel()) for amount in AMOUNTS]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert seen == [(i, 16) for i in range(1, 17)]


def test_criterion_scope_and_choice_of_tensors_are_the_pruner_s():
    model, evidence, _ = net_and_evidence()
    parameters = partial(laconic.model.compressible, include=["fc1", "head"])
    pruner = laconic.pruning.Pruner(
        criterion=laconic.pruning.criteria.wanda, scope=laconic.pruning.scopes.PerRow(), parameters=parameters
    )

    def most_in_a_row(pruned):
        return max(int((w == 0).sum(1).max()) for w in parameters(pruned).values())

    found = scan(model, (0.5,), most_in_a_row, pruner, evidence)
    assert found == Scan(("fc1.weight", "head.weight"), (0.5,), ((8.0,), (8.0,)), 0.0)


def test_groups_of_a_coupling_are_pruned_alone_in_all_their_tensors():
    model, _, _ = net_and_evidence()
    pruner = laconic.pruning.Pruner(unit=laconic.pruning.units.Coupled(COUPLING))

    def touched(pruned):
        return sum(2**i for i, name in enumerate(("conv1", "bn", "conv2", "fc1")) if _zeros(pruned, name))

    found = scan(model, (0.5,), touched, pruner)
    assert found == Scan(("conv1", "conv2"), (0.5,), ((1 + 2 + 4,), (4 + 8,)), 0)
    spared = laconic.pruning.Pruner(
        unit=laconic.pruning.units.Coupled(COUPLING), parameters=partial(laconic.model.compressible, exclude=["conv1"])
    )
    assert scan(model, (0.5,), touched, spared).names == ("conv2",)


def _zeros(model, name):
    return bool((getattr(model, name).weight == 0).any())


def test_evaluation_may_spoil_its_copy():
    def spoil(pruned):
        found = n_zeros(pruned)
        with torch.no_grad():
            for parameter in pruned.parameters():
                parameter.zero_()
        return found

    assert scan(Net(), (0.5,), spoil).dense == 0


def test_what_a_file_has_is_not_evaluated_again(tmp_path):
    model, path = Net(), tmp_path / "scan.json"
    whole = scan(model, AMOUNTS, n_zeros)
    calls = []

    def interrupted(pruned):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(n_zeros(pruned))
        return calls[-1]

    with pytest.raises(KeyboardInterrupt):
        scan(model, AMOUNTS, interrupted, path=path)
    after = []
    assert scan(model, AMOUNTS, lambda m: after.append(1) or n_zeros(m), path=path) == whole
    assert len(after) == 16 - 5
    assert scan(model, AMOUNTS, pytest.fail, path=path) == whole
    assert scan(model, (0.5,), pytest.fail, path=path).values == tuple(row[1:2] for row in whole.values)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_something_else_is_refused(tmp_path):
    model, path = Net(), tmp_path / "scan.json"
    scan(model, (0.5,), n_zeros, path=path)
    with pytest.raises(laconic.errors.MismatchError, match=r"scan.json: expected criterion lamp, found magnitude"):
        scan(model, (0.5,), n_zeros, laconic.pruning.Pruner(criterion=laconic.pruning.criteria.lamp), path=path)
    with torch.no_grad():
        model.bn.running_mean.add_(1)
    with pytest.raises(laconic.errors.MismatchError, match="expected model"):
        scan(model, (0.5,), n_zeros, path=path)
    for text in ("{", "[]", json.dumps({"of": {}, "points": [["a", 1]]})):
        path.write_text(text)
        with pytest.raises(laconic.errors.FormatError, match="expected a sensitivity scan"):
            scan(model, (0.5,), n_zeros, path=path)


@pytest.mark.parametrize("amounts", [(), (0.5, 0.5), (0.9, 0.5), (-0.1,), (1.5,)])
def test_amounts_are_increasing_fractions(amounts):
    with pytest.raises(ValueError, match="amounts: expected increasing fractions"):
        scan(Net(), amounts, n_zeros)


NAN = float("nan")
SCAN = Scan(
    ("bears", "lucky", "fragile", "broken"),
    (0.5, 0.8, 0.9),
    ((0.91, 0.9, 0.89), (0.9, 0.5, 0.9), (0.8, 0.7, 0.6), (0.9, NAN, 0.9)),
    dense=0.9,
)


def test_rates_go_as_far_as_every_smaller_amount_is_tolerated():
    rates = SCAN.rates(0.0101)
    assert rates.densities == pytest.approx({"bears": 0.1, "lucky": 0.5, "fragile": 1.0, "broken": 0.5})
    assert SCAN.rates(0).densities["bears"] == pytest.approx(0.2)
    assert rates.otherwise == 1.0


def test_losses_may_be_better_low():
    low = Scan(("a", "b"), (0.5, 0.9), ((10.0, 12.0), (8.0, 11.0)), dense=10.0)
    assert low.rates(1, lower_is_better=True).densities == pytest.approx({"a": 0.5, "b": 0.1})
    assert low.losses(lower_is_better=True) == ((0.0, 2.0), (-2.0, 1.0))


def test_a_tolerance_is_not_negative():
    with pytest.raises(ValueError, match="tolerance: expected 0 or more, got -1"):
        SCAN.rates(-1)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_network_without_a_finite_score_is_refused(score):
    with pytest.raises(ValueError, match="expected a finite score of the network itself, found"):
        scan(nn.Linear(5, 7), (0.5,), lambda m: score)


def test_a_name_that_begins_another_does_not_shadow_it():
    found = Scan(("a", "a.b", "a.b.c"), (0.5,), ((1.0,), (1.0,), (0.0,)), dense=1.0).rates(0)
    assert list(found.densities) == ["a.b.c", "a.b", "a"]


def test_pruning_at_the_rates_removes_what_the_scan_removed():
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 5))
    found = scan(model, (0.3, 0.7, 0.9), lambda m: -n_zeros(m))  # of 35 weights, 10.5, 24.5 and 31.5
    rates = found.rates(30)
    mask = laconic.prune_(model, rates, scope=laconic.pruning.scopes.PerTensor())
    assert [-int((~kept).sum()) for kept in mask.values()] == [row[1] for row in found.values]
