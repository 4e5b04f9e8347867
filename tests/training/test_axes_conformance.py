"""Every member of every axis of pruning composes with every way to train."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

import laconic
from laconic.model.evidence import MOVEMENT
from laconic.pruning import Pruner
from laconic.pruning.budgets import Density
from laconic.training import AtRandom, ByGradient, DropAndGrow, Gradual, Hold, Schedule
from laconic.training.schedules import linear
from tests.pruning.axes import BUDGETS, CRITERIA, REFUSED, SCOPES, SOLVERS, UNITS, label
from tests.support.nets import Net, net_and_evidence

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
    return evidence if MOVEMENT in pruner.needs else laconic.model.observe(model, batches, pruner.needs)


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
    return under(Hold(pruner.prune_(model, gathered(pruner, model))), model)


def gradual(pruner, model):
    observe = None if MOVEMENT in pruner.needs else partial(gathered, pruner)
    return under(Gradual(RAMP, 2, pruner, observe), model)


def iterative(pruner, model):
    rounds = laconic.training.prune_iteratively_(
        model,
        Schedule(0.5, 2, linear),
        lambda model, mask: under(Hold(mask), model),
        pruner,
        observe=partial(gathered, pruner),
    )
    *_, last = rounds
    return last.mask


def regrown(growth, pruner, model):
    mask = pruner.mask(model, gathered(pruner, model))
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


def choice_of(axis, member):
    """A pruner's fields: half of the weights go, unless the axis is the budget."""
    return {"budget": Density(0.5), axis: member[1](0.5) if axis == "budget" else member}


def is_refused(axis, member, method):
    """What does not compose: all else must."""
    name = label(member[0] if axis == "budget" else member)
    ramps = method in ("gradual", "iterative")
    if axis == "budget":
        alone = name in ("Price", "Erk")  # for criteria in bits; for scopes within tensors
        return alone or (ramps and name not in ("Density", "Erk"))
    return name == "norm_scale"  # it scores channels, not weights


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("axis", "member"), MEMBERS, ids=lambda value: label(value[0] if isinstance(value, tuple) else value)
)
def test_a_choice_trains_to_a_mask_that_holds(axis, member, method):
    def trained():
        torch.manual_seed(0)
        model = Net()
        return model, METHODS[method](Pruner(**choice_of(axis, member)), model)

    if is_refused(axis, member, method):
        with pytest.raises(REFUSED, match="expected"):
            trained()
        return
    (_, first), (model, mask) = trained(), trained()
    parameters = dict(model.named_parameters())
    assert all(torch.equal(kept, mask[name]) for name, kept in first.items()), "reruns agree"
    assert all(not parameters[name][~kept].any() for name, kept in mask.items())
