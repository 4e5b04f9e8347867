"""Every member of every axis, and their combinations, keep the same promises.

A criterion is held to them by registering itself; a unit, scope, budget or solver is one entry in `axes`.
"""

import copy
import itertools

import pytest
import torch

import laconic
from laconic.errors import MismatchError, NonFiniteError, UnsupportedError
from laconic.pruning import select
from laconic.pruning.budgets import Count, Density, Erk, Price, Rates, Total
from laconic.pruning.scopes import NM, Global, PerRow, PerTensor
from laconic.pruning.solvers import SparseGPT
from laconic.pruning.units import Block, Coupled, Weight
from tests.pruning.axes import BUDGETS, CRITERIA, REFUSED, SCOPES, SOLVERS, UNITS, label
from tests.support.nets import COUPLING, Net, net_and_evidence


def solved(density=0.5, budget="Density", **axes):
    """The mask and new weights, or None for a combination that is refused by name."""
    model, evidence, _ = net_and_evidence()
    pruner = laconic.pruning.Pruner(budget=BUDGETS[budget](density), **axes)
    try:
        return pruner.solver(pruner.competing(model), evidence, pruner)
    except REFUSED as error:
        assert "expected" in str(error)
        return None


def check(result, again):
    """Promises that hold whatever was chosen."""
    weights, mask = result
    model, _, _ = net_and_evidence()
    parameters = dict(model.named_parameters())
    assert {n: m.shape for n, m in mask.items()} == {n: parameters[n].shape for n in mask}
    for name, kept in mask.items():
        assert torch.equal(kept, again[1][name]), "reruns agree"
        assert not weights[name][~kept].any(), "what goes is zero"
        assert weights[name].isfinite().all()
        assert weights[name].dtype == parameters[name].dtype


PAIRS = {
    ("criterion", "unit"): (CRITERIA, UNITS),
    ("criterion", "scope"): (CRITERIA, SCOPES),
    ("criterion", "budget"): (CRITERIA, BUDGETS),
    ("criterion", "solver"): (CRITERIA, SOLVERS),
    ("unit", "scope"): (UNITS, SCOPES),
    ("unit", "budget"): (UNITS, BUDGETS),
    ("unit", "solver"): (UNITS, SOLVERS),
    ("scope", "budget"): (SCOPES, BUDGETS),
    ("scope", "solver"): (SCOPES, SOLVERS),
    ("budget", "solver"): (BUDGETS, SOLVERS),
}
COMBINATIONS = [
    dict(zip(axes, values, strict=True)) for axes, lists in PAIRS.items() for values in itertools.product(*lists)
]


@pytest.mark.parametrize("axes", COMBINATIONS, ids=lambda axes: "-".join(map(label, axes.values())))
def test_every_pair_gives_a_mask_or_a_named_refusal(axes):
    before = copy.deepcopy(net_and_evidence()[0].state_dict())
    for density in (0.0, 0.25, 0.5, 1.0):
        result = solved(density, **axes)
        if result is not None:
            check(result, solved(density, **axes))
            if density == 1 and axes.get("budget") in (None, "Density", "Erk", "Rates"):
                assert result[1].sparsity == 0
    assert all(torch.equal(before[n], t) for n, t in net_and_evidence()[0].state_dict().items()), "pure"


def test_refusals_are_few():
    """What is refused at a density of 0.5 with everything else at its default; all else works."""
    refused = {tuple(map(label, axes.values())) for axes in COMBINATIONS if solved(0.5, **axes) is None}
    only_ranks = {(label(c), "Price") for c in CRITERIA if not c.in_bits}
    by_default_magnitude = {(label(x), "Price") for x in (*UNITS, *SCOPES)}
    price_solvers = {("Price", label(s)) for s in SOLVERS}
    one_contest = {(label(x), "Erk") for x in (*CRITERIA, *UNITS)} | {("Global", "Erk")}
    erk_solvers = {("Erk", label(s)) for s in SOLVERS}
    silent = {pair for pair in refused if pair[0] == "norm_scale" and pair[1] != "Coupled"}
    no_inputs = {("Coupled", "NM"), ("Coupled", "SparseGPT")}
    ragged = {("Block", "NM")}  # tiles whose number 4 does not divide
    expected = only_ranks | by_default_magnitude | price_solvers | one_contest | erk_solvers
    assert refused == expected | silent | no_inputs | ragged


TENSORS = {"normal": torch.randn, "equal": torch.ones, "ties": lambda shape: torch.randn(shape).round()}


@pytest.mark.parametrize("fraction", [0, 0.037, 0.5, 0.9, 1])
@pytest.mark.parametrize("unit", [Weight(), Block(2, 4), Block(1, None)], ids=label)
@pytest.mark.parametrize("kind", TENSORS)
def test_counts_are_exact_and_ties_go_to_the_lower_index(kind, unit, fraction):
    lost = {name: TENSORS[kind](shape) for name, shape in {"a": (30, 20), "b": (8, 4, 3, 3), "empty": (0, 4)}.items()}
    for scope in (PerTensor(), PerRow()) if unit != Weight() else (Global(), PerTensor(), PerRow(), NM(4)):
        kept = unit.pool({n: m.double() for n, m in select(lost, Density(fraction), scope, unit).items()})
        pooled = unit.pool(lost)
        groups = [list(lost)] if scope.together else [[n] for n in lost]
        for names in groups:
            scores = (
                torch.cat([scope.table(pooled[n], n) for n in names], 1)
                if len(names) > 1
                else scope.table(pooled[names[0]], names[0])
            )
            stays = (
                torch.cat([scope.table(kept[n], n) for n in names], 1)
                if len(names) > 1
                else scope.table(kept[names[0]], names[0])
            )
            n = scores.shape[1]
            for row, stay in zip(scores, stays, strict=True):
                best = torch.sort(row, descending=True, stable=True).indices[: n - round((1 - fraction) * n)]
                assert torch.equal(best.sort().values, stay.nonzero().squeeze(1))


def test_even_mixed_tensors_compete_for_what_they_cost():
    lost = {"a": torch.rand(40, 10), "b": torch.rand(40, 10)}
    each = {"a": 4.0, "b": 1.0}
    mask = select(lost, Density(0.5, each))
    cost = sum(each[n] * int(m.sum()) for n, m in mask.items())
    assert 0.5 * 2000 - 4 < cost <= 0.5 * 2000
    assert mask["a"].sum() < mask["b"].sum(), "what costs more has to lose more"
    total = select(lost, Total(700, each), PerTensor())
    assert 690 < sum(each[n] * int(m.sum()) for n, m in total.items()) <= 700


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 0.9])
def test_erk_follows_its_formula_and_keeps_the_exact_total(density):
    shapes = {"conv": (16, 8, 3, 3), "wide": (300, 200), "small": (10, 10)}
    mask = select({n: torch.rand(s) for n, s in shapes.items()}, Erk(density), PerTensor())
    n = mask.numel
    assert mask.n_kept == n - round((1 - density) * n)
    densities = {name: float(m.double().mean()) for name, m in mask.items()}
    raw = {name: sum(s) / torch.Size(s).numel() for name, s in shapes.items()}
    free = [name for name, d in densities.items() if d < 1]
    for a, b in itertools.pairwise(free):
        assert densities[a] / densities[b] == pytest.approx(raw[a] / raw[b], rel=0.1)
    assert all(raw[dense] > max(raw[name] for name in free) for dense in densities.keys() - set(free))


def test_a_price_needs_no_rate():
    lost = {"w": torch.tensor([[0.5, 2.0, 3.9, 4.1]])}
    assert select(lost, Price(1.0, each=4.0))["w"].tolist() == [[False, False, False, True]]
    assert select(lost, Price(10.0, each=4.0))["w"].tolist() == [[True, True, True, True]]
    assert select(lost, Price(0.0))["w"].any().item() is False


def test_rates_name_what_does_not_match_and_what_competes_together():
    lost = {"a.weight": torch.rand(4, 4), "b.weight": torch.rand(4, 4)}
    mask = select(lost, Rates({"a": 0.25}, otherwise=0.5), PerTensor())
    assert [int(m.sum()) for m in mask.values()] == [4, 8]
    with pytest.raises(MismatchError, match="'c'"):
        select(lost, Rates({"c": 0.5}), PerTensor())
    with pytest.raises(MismatchError, match="by itself"):
        select(lost, Rates({"a": 0.5}))


@pytest.mark.parametrize("solver", SOLVERS, ids=label)
@pytest.mark.parametrize(
    "criterion",
    [laconic.pruning.criteria.magnitude, laconic.pruning.criteria.wanda, laconic.pruning.criteria.obs],
    ids=label,
)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
def test_an_n_to_m_mask_is_valid_in_every_run(criterion, solver, n, m):
    model, evidence, _ = net_and_evidence()
    pruner = laconic.pruning.Pruner(criterion, scope=NM(m), budget=Count(n), solver=solver)
    for name, kept in pruner.mask(model, evidence).items():
        runs = kept.movedim(1, -1).reshape(-1, m).sum(1)
        assert (runs == n).all(), name


def test_runs_name_the_tensor_that_they_do_not_divide():
    with pytest.raises(MismatchError, match="first: .*runs of 4, found 3"):
        select({"first": torch.rand(8, 3, 3, 3)}, Count(2), NM(4))


@pytest.mark.parametrize("density", [0.3, 0.5, 0.8])
def test_channels_are_counted_in_weights_where_they_cross(density):
    model, _, _ = net_and_evidence()
    mask = laconic.pruning.Pruner(unit=Coupled(COUPLING)).at(1 - density).mask(model)
    assert density - 0.15 < 1 - mask.sparsity <= density
    dead = ~mask["bn.weight"]
    assert torch.equal(dead, ~mask["bn.bias"])
    assert not mask["conv1.weight"][dead].any()
    assert not mask["conv2.weight"][:, dead].any()
    assert mask["conv1.weight"][~dead].all(), "a channel goes as a whole or stays as a whole"


@pytest.mark.parametrize("unit", UNITS, ids=label)
@pytest.mark.parametrize("solver", SOLVERS, ids=label)
def test_a_model_is_pruned_held_compiled_and_saved(unit, solver, tmp_path):
    _, evidence, batches = net_and_evidence()
    torch.manual_seed(0)
    model = Net()
    keys = list(model.state_dict())
    pruner = laconic.pruning.Pruner(unit=unit, solver=solver)
    try:
        mask = pruner.at(0.5).prune_(model, evidence)
    except UnsupportedError:
        assert isinstance(unit, Coupled)
        assert isinstance(solver, SparseGPT)
        return
    assert model.fc1.weight is model.fc2.weight
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    with laconic.hold(mask, compiled, optimizer):
        for inputs, targets in batches:
            torch.nn.functional.cross_entropy(compiled(inputs), targets).backward()
            optimizer.step()
    parameters = dict(model.named_parameters())
    assert all(not parameters[name][~kept].any() for name, kept in mask.items())
    assert list(twin.state_dict()) == list(model.state_dict()) == keys
    laconic.save(model, tmp_path / "m.lac")
    back = laconic.load(tmp_path / "m.lac")
    assert all(not back[n][~mask[n]].any() for n in mask), "zeros are exact in the file"


@pytest.mark.parametrize("budget", [Density(0.0), Total(0.0), Price(0.0)], ids=str)
def test_a_layer_keeps_its_best_channel(budget):
    lost = {name: weight.detach().square() for name, weight in net_and_evidence()[0].named_parameters()}
    unit = Coupled(COUPLING)
    kept = select(lost, budget, unit=unit)
    best = unit.pool(lost)["conv1"].argmax()
    assert kept["bn.weight"].nonzero().flatten().tolist() == [best], "a layer without channels is none"


def test_gates_may_sit_on_channels():
    model, _, batches = net_and_evidence()
    model = copy.deepcopy(model)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    rule = laconic.training.Gates(1.0, 32, Coupled(COUPLING))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with laconic.attach(rule, model, optimizer):
        gates = {name: (p / before[name]).detach() for name, p in model.named_parameters()}
        of_conv1 = gates["bn.weight"]
        assert torch.allclose(gates["conv1.weight"], of_conv1[:, None, None, None].expand(8, 8, 3, 3), atol=1e-4)
        crossing = gates["conv2.bias"][:, None, None, None] * of_conv1[None, :, None, None]
        assert torch.allclose(gates["conv2.weight"], crossing.expand(4, 8, 3, 3), atol=1e-4)
        torch.nn.functional.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
        optimizer.step()


def test_missing_evidence_is_named():
    model, _, _ = net_and_evidence()
    with pytest.raises(MismatchError, match="expected NORM, found none"):
        laconic.prune_(copy.deepcopy(model), 0.5, laconic.pruning.criteria.wanda)
    with pytest.raises(NonFiniteError, match="a: "):
        select({"a": torch.tensor([torch.nan, 1.0])}, Density(0.5))


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("budget", [Density, Erk, lambda f: Rates({"a": f}), lambda f: Rates({}, f)])
def test_fractions_outside_0_and_1_are_refused(budget, bad):
    with pytest.raises(ValueError, match="expected a fraction"):
        budget(bad)


@pytest.mark.parametrize(
    "bad", [lambda: Count(-1), lambda: Total(-1.0), lambda: Price(-1.0), lambda: NM(0), lambda: Block(0, 1)]
)
def test_senseless_choices_are_refused(bad):
    with pytest.raises(ValueError, match="expected|at least"):
        bad()
