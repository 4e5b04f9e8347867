"""Scores of any kind that a function may return, and how sure a difference is."""

import inspect
import logging
import math
import threading
import weakref
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import laconic
from laconic import MaxDrop
from laconic.description import Measurement
from laconic.errors import MismatchError, UnsupportedError
from laconic.model import Objective
from laconic.model.objective import as_number
from laconic.search.judging import Judge, difference_error, too_few

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
NUMBERS = [0.5, 1, np.float32(0.5), np.float64(0.5), np.int64(1), np.array(0.5), np.array([0.5]), torch.tensor(0.5)]
NUMBERS += [Fraction(1, 2), Decimal("0.5"), np.longdouble(0.5), torch.tensor(0.5).bfloat16(), torch.ones(1).to_sparse()]
NUMBERS += [torch.tensor([0.5]), torch.tensor(0.5, requires_grad=True), torch.tensor(1)]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_any_number_is_a_score(number):
    assert as_number(number, lambda: None) in (0.5, 1.0)


@pytest.mark.parametrize(
    "found",
    [
        *(None, "0.5", {"accuracy": 0.5}, (0.5, 1), torch.ones(2), np.ones(2), np.ones(0), True, [0.5], 1j, 10**400),
        *(np.str_("0.5"), np.True_, np.complex64(1), np.array(None), torch.tensor(True), torch.tensor(1j)),
        *(torch.empty(0), torch.ones((), device="meta")),
    ],
    ids=repr,
)
def test_what_is_no_number_is_named_with_its_function(found):
    def mine(network):
        return found

    with pytest.raises(MismatchError, match="evaluate: expected a number from mine, found"):
        Judge([], Objective(), mine)(network())


def trained(seed=0):
    model = network(seed)
    laconic.train(model, [(X, Y)], laconic.Training(20, lambda p: torch.optim.Adam(p, lr=0.05)))
    return model


def test_the_error_of_a_difference_is_that_of_paired_examples():
    """The deviation of the difference over draws of the examples."""
    first, second = trained(0), trained(1)
    generator = torch.Generator().manual_seed(1)
    for objective in (
        Objective(),
        Objective(lambda o, t: nn.functional.mse_loss(o[:, 0], t.float(), reduction="none")),
    ):
        whole = [laconic.evaluate(model, [(X, Y)], objective) for model in (first, second)]
        found = difference_error(*whole)
        differences = []
        for _ in range(300):
            drawn = torch.randint(0, 60, (60,), generator=generator)
            a, b = (laconic.evaluate(model, [(X[drawn], Y[drawn])], objective).score for model in (first, second))
            differences.append(b - a)
        assert found == pytest.approx(np.std(differences), rel=0.25)


def test_a_network_is_no_different_from_itself_and_few_examples_are_no_certainty():
    model, other = trained(0), trained(0)
    with torch.no_grad():
        other[2].weight.mul_(1.01)
    code, again = (laconic.evaluate(m, [(X, Y)]) for m in (model, other))
    assert difference_error(code, code) == 0
    assert code.n_right == again.n_right
    assert difference_error(code, again) == pytest.approx(math.sqrt(2) / 62)


def test_a_loss_that_does_not_divide_is_compared_by_batch():
    objective = Objective(nn.functional.cross_entropy)
    batches = [(X[i : i + 10], Y[i : i + 10]) for i in range(0, 60, 10)]
    codes = [laconic.evaluate(m, batches, objective) for m in (trained(0), trained(1))]
    assert len(codes[0].entries.nats) == 6
    assert difference_error(*codes) > 0
    assert math.isnan(difference_error(*(laconic.evaluate(m, [(X, Y)], objective) for m in (trained(0), trained(1)))))


def test_too_few_examples_are_said_with_the_number_that_would_do():
    code = laconic.evaluate(trained(), [(X, Y)])
    measured = [Measurement(n_bytes=100, score=0.9, score_error=math.sqrt(2) / 62)]
    said = too_few(code, measured, MaxDrop(0.01))
    assert "60 examples are too few to tell a drop of 0.01 apart" in said
    assert int(said.split("about ")[1].split(" ")[0].replace(",", "")) > 1000
    assert not too_few(code, measured, MaxDrop(0.5))
    assert not too_few(code, measured, laconic.MaxBytes(100))


def test_compress_keeps_a_drop_at_its_confidences_bound(tmp_path):
    model = trained()
    held_out = [(X + 0.01, Y)]
    found = laconic.compress(model, [(X, Y)], tmp_path / "n.lac", MaxDrop(0.2), held_out)
    assert found.target.largest_drop(found.chosen.measured, found.score) <= 0.2
    assert found.chosen.measured.score_error > 0
    assert "95% bound" in str(found)
    careless = laconic.compress(model, [(X, Y)], tmp_path / "m.lac", MaxDrop(0.2, confidence=0.5), held_out)
    assert careless.chosen.measured.n_bytes <= found.chosen.measured.n_bytes


def test_regression_is_judged_by_its_loss(tmp_path):
    targets = X @ torch.randn(4, 1)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    laconic.train(model, [(X, targets)], laconic.Training(200, lambda p: torch.optim.Adam(p, lr=0.02)))
    loss = laconic.evaluate(model, [(X, targets)]).loss
    found = laconic.compress(model, [(X, targets)], tmp_path / "n.lac", MaxDrop(0.05))
    decoded = laconic.load(tmp_path / "n.lac", into=nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)))
    assert found.score == pytest.approx(-loss, rel=1e-5)
    assert laconic.evaluate(decoded, [(X, targets)]).loss <= loss + 0.05


def test_lower_is_better_where_that_is_asked_for(tmp_path):
    model = trained()

    def loss(network):
        return laconic.evaluate(network, [(X, Y)]).loss

    found = laconic.compress(model, [(X, Y)], tmp_path / "n.lac", MaxDrop(0.05), loss, minimize=True)
    assert -found.chosen.measured.score <= loss(model) + 0.05
    assert -found.score == pytest.approx(loss(model))


REFUSED = {
    "a fraction of a fraction": (
        {"target": MaxDrop(1)},
        ValueError,
        r"below 1 for a score within \[0, 1\].*MaxDrop\(0.01\)",
    ),
    "a number": ({"target": 0.01}, ValueError, r"target: expected a Target, found 0.01; MaxDrop\(0.01\)\?"),
    "NaN": ({"evaluate": lambda network: math.nan}, ValueError, "finite score of the network itself, found NaN"),
    "infinity": ({"evaluate": lambda network: np.inf}, ValueError, "finite score of the network itself, found inf"),
    "no score": ({"evaluate": lambda network: None}, MismatchError, "expected a number from <lambda>, found None"),
    "a generator": ({"evaluate": iter([(X, Y)])}, MismatchError, "evaluate: expected a list or a loader"),
    "a pair": ({"evaluate": ([(X, Y)], [(X, Y)])}, MismatchError, "evaluate: expected batches, found a pair"),
    "nothing": ({"data": []}, MismatchError, "data: expected some, found none"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line_and_leaves_nothing(kind, tmp_path):
    changed, error, message = REFUSED[kind]
    arguments = {"data": [(X, Y)], "target": MaxDrop(0.1)} | changed
    with pytest.raises(error, match=message):
        inspect.unwrap(laconic.compress)(
            network(), path=tmp_path / "n.lac", **arguments
        )  # without the tests' type checks
    assert not list(tmp_path.iterdir())


class Uncopied(nn.Sequential):
    """Its copy is what `copy` makes of it."""

    copy: Callable[[nn.Module], nn.Module | None]

    def __deepcopy__(self, memo):
        return self.copy(self)


def uncopied(copy):
    model = Uncopied(nn.Linear(4, 3))
    model.copy = copy
    return model


def holding(attribute):
    model = network()
    model.held = attribute
    return model


class Sharing(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x)


def fails(model):
    raise RuntimeError("not this one\nfor a long reason")


UNCOPIED = {
    "a lock": (lambda: holding(threading.Lock()), "Sequential: cannot be copied: cannot pickle"),
    "a thread": (lambda: holding(threading.Thread()), "Sequential: cannot be copied: cannot pickle"),
    "a generator": (lambda: holding(i for i in [1]), "Sequential: cannot be copied: cannot pickle 'generator'"),
    "a module of Python": (lambda: holding(math), "Sequential: cannot be copied: cannot pickle 'module'"),
    "an activation": (lambda: holding(network()(X)), "Sequential: cannot be copied: Only Tensors created"),
    "an error of its own": (lambda: uncopied(fails), "Uncopied: cannot be copied: not this one$"),
    "itself": (lambda: uncopied(lambda model: model), "Uncopied: cannot be copied: .* leaves 0.* shared with the copy"),
    "nothing": (
        lambda: uncopied(lambda model: None),
        "Uncopied: cannot be copied: its __deepcopy__ returns a NoneType",
    ),
    "a part": (lambda: Sharing(uncopied(lambda model: model)), "Sharing: .* leaves part.0.* shared with the copy"),
}


@pytest.mark.parametrize("kind", UNCOPIED)
def test_a_network_that_cannot_be_copied_is_named_and_stays(kind, tmp_path):
    make, message = UNCOPIED[kind]
    model = make()
    before = [p.detach().clone() for p in model.parameters()]
    for call in (
        lambda: laconic.compress(model, [(X, Y)], tmp_path / "n.lac"),
        lambda: laconic.describe(model, [(X, Y)]),
    ):
        with pytest.raises(UnsupportedError, match=message):
            call()
    assert all(map(torch.equal, model.parameters(), before))


KEPT = {"a lambda": lambda: abs, "a weak reference": lambda: weakref.ref(network), "a logger": logging.getLogger}


@pytest.mark.parametrize("kind", KEPT)
def test_a_network_that_holds_what_copies_by_reference_is_compressed(kind, tmp_path):
    assert laconic.compress(holding(KEPT[kind]()), [(X, Y)], tmp_path / "n.lac", MaxDrop(0.9)).chosen
