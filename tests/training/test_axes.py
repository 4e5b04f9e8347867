"""Every member of every axis of pruning composes with every way to train."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

import laconic
from laconic import AtRandom, ByGradient, DropAndGrow, Gradual, Hold, Pruner, Schedule, linear
from laconic.evidence import MOVEMENT
from pruning.axes import BUDGETS, CRITERIA, REFUSED, SCOPES, SOLVERS, UNITS, label
from pruning.nets import Net, net_and_evidence

STEPS = 4
RAMP = Schedule(0.5, STEPS, linear)
MEMBERS = [
    (axis, member)
    for axis, members in (
        ("criterion", CRITERIA),
        ("unit", UNITS),
        ("scope", SCOPES),
        ("budget", BUDGETS.items()),
        ("solver", SOLVERS),
    )
    for member in members
]


def gathered(pruner, model):
    _, evidence, batches = net_and_evidence()
    return evidence if MOVEMENT in pruner.needs else laconic.observe(model, batches, pruner.needs)


def steps(model, optimizer):
    torch.manual_seed(1)
    for number in range(STEPS):
        inputs, targets = net_and_evidence()[2][number % 2]
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def under(rule, model):
    """The mask that training under the rule ends with."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with laconic.attach(rule, model, optimizer) as attached:
        steps(model, optimizer)
    return attached.mask


def held(pruner, model):
    return under(Hold(laconic.prune_(model, 0.5, pruner, gathered(pruner, model))), model)


def gradual(pruner, model):
    observe = None if pruner.criterion is laconic.movement else partial(gathered, pruner)
    return under(Gradual(RAMP, 2, pruner, observe), model)


def iterative(pruner, model):
    rounds = laconic.iterative(
        model,
        Schedule(0.5, 2, linear),
        lambda model, mask: under(Hold(mask), model),
        pruner,
        observe=partial(gathered, pruner),
    )
    *_, last = rounds
    return last.mask


def regrown(growth, pruner, model):
    mask = pruner.mask(model, 0.5, gathered(pruner, model))
    moved = under(DropAndGrow(mask, Schedule(0.3, STEPS, linear, initial=0.3), growth, every=2), model)
    assert {n: int(m.sum()) for n, m in moved.items()} == {n: int(m.sum()) for n, m in mask.items()}
    return moved


METHODS = {
    "held": held,
    "gradual": gradual,
    "iterative": iterative,
    "SET": partial(regrown, AtRandom()),
    "RigL": partial(regrown, ByGradient()),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("axis", "member"), MEMBERS, ids=lambda value: label(value[0] if isinstance(value, tuple) else value)
)
def test_a_choice_trains_to_a_mask_that_holds(axis, member, method):
    choice = {axis: member[1] if axis == "budget" else member}
    masks = []
    for _ in range(2):
        torch.manual_seed(0)
        model = Net()
        try:
            masks.append(METHODS[method](Pruner(**choice), model))
        except REFUSED as error:
            assert "expected" in str(error)
            return
    parameters = dict(model.named_parameters())
    assert all(torch.equal(kept, masks[1][name]) for name, kept in masks[0].items()), "reruns agree"
    assert all(not parameters[name][~kept].any() for name, kept in masks[1].items())
