"""Schedules: how a value, such as the sparsity, grows from step to step.

A schedule is a ramp from `initial` to `final` between the steps `begin` and `end`, along a curve. Curves are functions
`(initial, final, t) → value` with t in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Curve: TypeAlias = Callable[[float, float, float], float]
Value: TypeAlias = float | Callable[[int], float]


def one_shot(initial: float, final: float, t: float) -> float:
    """The final value from the first step on."""
    del initial, t
    return final


def linear(initial: float, final: float, t: float) -> float:
    """The same amount at every step."""
    return initial + (final - initial) * t


def cubic(initial: float, final: float, t: float) -> float:
    """Fast first, then slower and slower: s_f + (s_i − s_f)(1 − t)³ (Zhu & Gupta 2017)."""
    return final + (initial - final) * (1 - t) ** 3


def cosine(initial: float, final: float, t: float) -> float:
    """Slow at both ends: s_f + (s_i − s_f)(1 + cos πt)/2 (Loshchilov & Hutter 2017)."""
    return final + (initial - final) * (1 + math.cos(math.pi * t)) / 2


def geometric(initial: float, final: float, t: float) -> float:
    """The same fraction of what is left at every step: 1 − (1 − s_i)·((1 − s_f)/(1 − s_i))^t."""
    return 1 - (1 - initial) * ((1 - final) / (1 - initial)) ** t


def exponential(initial: float, final: float, t: float) -> float:
    """The same factor at every step: s_i·(s_f/s_i)^t, for values above 0, such as prices."""
    return initial * (final / initial) ** t


@dataclass(frozen=True)
class Schedule:
    """A value for each step: `initial` before `begin`, `final` from `end` on, along `curve` between.

    Attributes:
        final: value at the end, 0 or more; a sparsity is a fraction removed in [0, 1].
        end: step at which it is reached.
        curve: `one_shot`, `linear`, `cubic`, `cosine`, `geometric`, `exponential`, or a function like them.
        initial: value at the beginning; below 1 for `geometric`, above 0 for `exponential`.
        begin: step at which the ramp begins.

    Raises:
        ValueError: the end comes before the beginning, a value is negative or infinite, or the curve cannot connect the
            two.
    """

    final: float
    end: int
    curve: Curve = cubic
    initial: float = 0.0
    begin: int = 0

    def __post_init__(self) -> None:
        if self.end < self.begin:
            raise ValueError(f"schedule: expected end ≥ begin, got {self.end} < {self.begin}")
        values = (self.initial, self.final)
        if not all(0 <= value < math.inf for value in values):
            raise ValueError(f"schedule: expected finite values of 0 or more, got {self.initial}, {self.final}")
        if self.curve is geometric and not (self.initial < 1 and self.final <= 1):
            raise ValueError(f"schedule: a geometric ramp is of fractions, from below 1, not {values}")
        if self.curve is exponential and not min(values) > 0:
            raise ValueError(f"schedule: an exponential ramp is of values above 0, not {values}")

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        if step < self.begin:
            return self.initial
        if step >= self.end:
            return self.final
        return self.curve(self.initial, self.final, (step - self.begin) / (self.end - self.begin))


def check_fractions(schedule: Schedule, of: str) -> None:
    """ValueError if a schedule of fractions of weights goes above 1."""
    if max(schedule.initial, schedule.final) > 1:
        found = f"{schedule.initial} to {schedule.final}"
        raise ValueError(f"{of}: expected a schedule of fractions in [0, 1], got {found}")
