import math

import pytest
import torch
from torch import nn

from laconic import attach
from laconic.pruning import Mask
from laconic.training import AtRandom, ByGradient, DropAndGrow, Schedule
from laconic.training.rules import StepContext
from laconic.training.schedules import cosine, one_shot


class Linear(nn.Linear):
    """A layer whose weights and gradients a test sets."""

    def __init__(self, weight, gradient):
        super().__init__(weight.shape[1], weight.shape[0], bias=False)
        self.weight.data.copy_(weight)
        self.weight.grad = gradient.clone()


def changed_once(model, mask, growth, fraction=0.5, optimizer=None):
    rule = DropAndGrow(mask, Schedule(fraction, 9, one_shot, initial=fraction), growth, every=1)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.0)
    with attach(rule, model, optimizer) as attached:
        optimizer.step()
        return attached.mask["weight"]


def test_rigl_drops_the_smallest_and_grows_the_largest_gradients():
    weight = torch.tensor([[5.0, -1.0, 4.0, 2.0, 9.0, 9.0, 9.0, 9.0]])
    gradient = torch.tensor([[9.0, 8.0, 9.0, 0.1, 1.0, -7.0, 0.5, 2.0]])
    kept = torch.tensor([[True] * 4 + [False] * 4])
    model = Linear(weight, gradient)
    new = changed_once(model, Mask({"weight": kept}), ByGradient())
    # −1 and 2 are dropped. Of what is left out then, −1 itself and the sixth have the largest gradients.
    assert new.tolist() == [[True, True, True, False, False, True, False, False]]
    assert model.weight.tolist() == [[5, 0, 4, 0, 0, 0, 0, 0]], "what is grown starts from zero"


def test_set_grows_anywhere_with_the_same_chance():
    grown = torch.zeros(8)
    for seed in range(300):
        model = Linear(torch.arange(8.0, 0, -1)[None], torch.ones(1, 8))
        kept = torch.tensor([[True] * 4 + [False] * 4])
        new = changed_once(model, Mask({"weight": kept}), AtRandom(seed))
        assert int(new.sum()) == 4
        grown += new[0]
    assert grown[:2].tolist() == [300, 300]
    assert torch.allclose(grown[2:] / 300, torch.full((6,), 2 / 6), atol=0.09)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.NAdam])
def test_the_optimizer_forgets_what_is_dropped_or_grown(make):
    kept = torch.tensor([[True] * 4 + [False] * 2])
    model = Linear(torch.tensor([[5.0, 1.0, 4.0, 2.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0, 1.0, 2.0, 3.0]]))
    optimizer = make(model.parameters(), lr=0.0)
    optimizer.step()
    state = optimizer.state[model.weight]
    before = {k: v.clone() for k, v in state.items() if torch.is_tensor(v)}
    rule = DropAndGrow(Mask({"weight": kept}), Schedule(0.25, 9, one_shot, initial=0.25), every=1)
    with torch.no_grad():
        new = rule.before({"mask": rule.mask}, StepContext(model, optimizer, 1))["mask"]["weight"]
    assert new.tolist() == [[True, False, True, True, False, True]]
    moved = torch.tensor([[False, True, False, False, False, True]])
    shaped = [key for key, value in before.items() if value.shape == moved.shape]
    assert shaped
    for key, value in before.items():
        expected = value.masked_fill(moved, 0) if key in shaped else value
        assert torch.equal(state[key], expected), key


@pytest.mark.parametrize("growth", [ByGradient(), AtRandom()])
def test_counts_stay_exact_on_the_papers_schedule(growth):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10))
    mask = Mask({"0.weight": torch.rand(30, 40) < 0.2, "2.weight": torch.ones(10, 30).bool()})
    counts = {name: int(kept.sum()) for name, kept in mask.items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = Schedule(0, 30, cosine, initial=0.3)
    moved = []
    with attach(DropAndGrow(mask, schedule, growth, every=5), model, optimizer) as attached:
        for _ in range(40):
            old = attached.mask
            optimizer.zero_grad()
            model(torch.randn(16, 40)).square().mean().backward()
            optimizer.step()
            new = attached.mask
            assert {name: int(kept.sum()) for name, kept in new.items()} == counts
            assert all(not p[~kept].any() for p, kept in new.of(model))
            moved.append(int((new["0.weight"] & ~old["0.weight"]).sum()))
    assert mask["2.weight"].equal(attached.mask["2.weight"]), "a dense tensor stays as it is"
    n_kept = counts["0.weight"]
    for step, n_moved in enumerate(moved, start=1):
        due = step % 5 == 0 and step < 30
        most = round(0.15 * (1 + math.cos(math.pi * step / 30)) * n_kept) if due else 0
        assert n_moved <= most, "what is dropped may grow again"
        assert n_moved >= most / 2


def test_a_missing_gradient_is_named():
    model = nn.Linear(3, 2)
    rule = DropAndGrow(Mask({"weight": torch.eye(2, 3).bool()}), Schedule(0.3, 9), every=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(rule, model, optimizer), pytest.raises(ValueError, match="weight: expected a gradient"):
        optimizer.step()
