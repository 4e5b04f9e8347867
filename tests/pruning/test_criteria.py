"""Criteria equal their papers' formulas on cases small enough to compute by hand."""

import itertools
import math

import pytest
import torch

import laconic
from laconic.errors import MismatchError
from laconic.model.evidence import FISHER, GRADIENT, GRAM, OF_TABLES, SENSITIVITY, Evidence
from tests.support.nets import net_and_evidence


def test_lamp_is_its_definition_also_for_ties():
    weights = {"w": torch.tensor([[3.0, -1.0, 2.0], [1.0, 0.0, -3.0]])}
    squares = weights["w"].flatten().square()
    expected = [float(s / squares[squares >= s].sum()) for s in squares]
    assert laconic.pruning.criteria.lamp(weights)["w"].flatten().tolist() == pytest.approx(expected)


def test_scores_in_bits_are_the_loss_of_the_observed_cases():
    weights = {"w": torch.tensor([[2.0, -1.0]])}
    found = {GRADIENT: {"w": torch.tensor([[0.5, 0.25]])}, FISHER: {"w": torch.tensor([[1.0, 3.0]])}}
    evidence = Evidence(10, found)
    ten_nats = 10 / math.log(2)
    assert laconic.pruning.criteria.taylor(weights, evidence)["w"].tolist() == [
        pytest.approx([ten_nats, 0.25 * ten_nats])
    ]
    assert laconic.pruning.criteria.fisher(weights, evidence)["w"].tolist() == [
        pytest.approx([2 * ten_nats, 1.5 * ten_nats])
    ]
    assert laconic.pruning.criteria.snip(weights, evidence)["w"].tolist() == [pytest.approx([0.8, 0.2])]


def test_output_errors_are_relative_and_those_of_tables_count_more():
    torch.manual_seed(0)
    weights = {"table": torch.randn(4, 3), "layer": 100 * torch.randn(4, 3)}
    gram = torch.eye(3)[None]
    evidence = Evidence(1, {GRAM: {"table": gram, "layer": 7 * gram}}, tables=frozenset({"table"}))
    sums = {n: float(lost.sum()) for n, lost in laconic.pruning.criteria.output_error(weights, evidence).items()}
    assert sums == pytest.approx({"table": OF_TABLES, "layer": 1})


def best_error(w, gram, kept):
    """The least (w − ŵ)ᵀ H (w − ŵ) with ŵ zero outside `kept`."""
    left = torch.zeros_like(w)
    if kept:
        kept = list(kept)
        left[kept] = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ w)
    return float((w - left) @ gram @ (w - left))


def test_the_surgeon_goes_greedily_and_its_errors_are_the_best_possible():
    torch.manual_seed(0)
    d, n_rows = 6, 3
    x = torch.randn(40, d, dtype=torch.float64) @ torch.randn(d, d, dtype=torch.float64)
    gram, weight = x.T @ x / 40, torch.randn(n_rows, d, dtype=torch.float64)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(d)
    sensitivity = torch.tensor([1.0, 2.0, 0.5])
    evidence = Evidence(40, {GRAM: {"w": gram[None]}, SENSITIVITY: {"w": sensitivity}})
    lost = laconic.pruning.criteria.output_error({"w": weight}, evidence)["w"]
    in_bits = laconic.pruning.criteria.obs({"w": weight}, evidence)["w"]
    for row, w in enumerate(weight):
        kept, expected, highest = set(range(d)), torch.zeros(d, dtype=torch.float64), 0.0
        while kept:
            now = best_error(w, damped, kept)
            errors = {q: best_error(w, damped, kept - {q}) - now for q in kept}
            q = min(errors, key=errors.__getitem__)
            highest = max(highest, errors[q])
            expected[q] = highest
            kept -= {q}
        assert torch.allclose(in_bits[row], expected * sensitivity[row] * 40 / math.log(2) / 2)
        assert torch.allclose(lost[row] / lost[row].sum(), expected / expected.sum())
    assert float(lost.sum()) == pytest.approx(1)


def test_movement_and_scales_speak_only_of_what_they_know():
    model, evidence, _ = net_and_evidence()
    weights = dict(model.named_parameters())
    assert set(laconic.pruning.criteria.norm_scale(weights)) == {"bn.weight"}
    assert "conv2.bias" not in laconic.pruning.criteria.wanda(weights, evidence)
    with pytest.raises(MismatchError, match="scales of batch norms"):
        laconic.pruning.criteria.norm_scale({"fc1.weight": torch.rand(3, 3)})
    with pytest.raises(MismatchError, match="expected MOVEMENT"):
        laconic.pruning.criteria.movement(weights)


def test_random_scores_are_those_of_the_seed():
    weights = {"a": torch.ones(5, 4), "b": torch.ones(3)}
    one, same, other = (laconic.pruning.criteria.random(seed)(weights) for seed in (1, 1, 2))
    assert all(torch.equal(one[n], same[n]) for n in weights)
    assert not torch.equal(one["a"], other["a"])


def test_declarations_say_what_is_in_bits():
    model, evidence, _ = net_and_evidence()
    weights = laconic.model.compressible(model)
    for a, b in itertools.pairwise(
        [laconic.pruning.criteria.taylor, laconic.pruning.criteria.fisher, laconic.pruning.criteria.obs]
    ):
        assert a.in_bits
        assert b.in_bits
    assert not laconic.pruning.criteria.wanda.in_bits
    lost = laconic.pruning.criteria.fisher(weights, evidence)
    median = float(torch.cat([bits.flatten() for bits in lost.values()]).median())
    assert laconic.pruning.select(lost, laconic.pruning.budgets.Price(1.0, each=median)).sparsity == pytest.approx(
        0.5, abs=0.01
    )
