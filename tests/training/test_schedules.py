import itertools
import math

import pytest

import laconic
from laconic import zoo
from laconic.pruning.budgets import Density
from laconic.training import DropAndGrow, Gradual, Proximal, Schedule
from laconic.training.schedules import cubic, exponential, geometric, linear, one_shot

CURVES = [one_shot, linear, cubic, geometric, exponential]


@pytest.mark.parametrize("curve", CURVES)
def test_ends_order_and_bounds(curve):
    schedule = Schedule(0.9, end=30, curve=curve, initial=0.2, begin=10)
    values = [schedule(step) for step in range(50)]
    assert values[:10] == [0.2] * 10
    assert values[30:] == [0.9] * 20
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("curve", "middle"), [(one_shot, 0.9), (linear, 0.45), (cubic, 0.9 - 0.9 * 0.125), (geometric, 1 - 0.1**0.5)]
)
def test_known_middles(curve, middle):
    assert Schedule(0.9, end=10, curve=curve)(5) == pytest.approx(middle)


def test_geometric_removes_the_same_share_each_round():
    schedule = Schedule(0.95, end=5, curve=geometric, initial=0.5)
    left = [1 - schedule(step) for step in range(6)]
    assert [b / a for a, b in itertools.pairwise(left)] == pytest.approx([0.1**0.2] * 5)


def test_exponential_takes_the_same_factor_each_step_up_and_down():
    values = [Schedule(2.0, 4, exponential, initial=162.0)(step) for step in range(6)]
    assert values == pytest.approx([162.0, 54.0, 18.0, 6.0, 2.0, 2.0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"end": 1, "begin": 2},
        {"end": 1, "initial": -0.1},
        {"end": 1, "initial": math.nan},
        {"end": 1, "initial": math.inf},
        {"end": 1, "curve": geometric, "initial": 1.0},
        {"end": 1, "curve": geometric, "initial": 2.0},
        {"end": 1, "curve": exponential},
    ],
)
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(ValueError, match="schedule"):
        Schedule(0.9, **arguments)


def test_a_penalty_may_be_above_one_where_a_fraction_of_weights_may_not():
    model, ramp = zoo.blobs_net(), Schedule(2.0, 10, linear)
    assert Proximal(ramp).penalty(5) == 1.0
    mask = laconic.pruning.select({"fc1.weight": model.fc1.weight}, Density(0.5))
    for wrong in (
        lambda: Gradual(ramp),
        lambda: DropAndGrow(mask, ramp),
        lambda: next(laconic.training.prune_iteratively_(model, ramp, lambda *_: None)),
    ):
        with pytest.raises(ValueError, match=r"fractions in \[0, 1\], got 0.0 to 2.0"):
            wrong()
