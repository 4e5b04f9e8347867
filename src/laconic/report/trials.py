"""Trials: what several methods came to, each at several settings, each with several seeds.

Trials that differ in nothing but their seed are summed up by means and sample standard deviations, as
Blalock et al. (2020) ask of pruning papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import mean, stdev
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """A network as its file decodes; NaN for what is not known.

    Attributes:
        accuracy: the fraction of test cases that it gets right.
        data_bits: of the training targets, given it.
        file_bytes: the file's length.
        sparsity: the fraction of the dense network's compressible weights that are zero or cut away.
        parameters: that are not zero.
        multiply_adds: of one case, by its layers' shapes: zeros within them are multiplied too.
    """

    accuracy: float = math.nan
    data_bits: float = math.nan
    file_bytes: float = math.nan
    sparsity: float = math.nan
    parameters: float = math.nan
    multiply_adds: float = math.nan

    @property
    def total_bits(self) -> float:
        """Bits for the file, and for the data given the network."""
        return 8 * self.file_bytes + self.data_bits

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Outcome:
        """An outcome from plain values; what it has no name for is left out, what is missing is NaN."""
        return cls(**{name: float(values[name]) for name in cls.__dataclass_fields__ if name in values})


@dataclass(frozen=True)
class Trial:
    """One run of one method.

    Attributes:
        method: its name, as figures show it.
        seed: what it was run with.
        outcome: of the pruned network.
        setting: what it shares with runs of other seeds, such as the amount asked for.
        dense: of the network before.
    """

    method: str
    seed: int
    outcome: Outcome
    setting: str = ""
    dense: Outcome | None = None


class Measure(Enum):
    """What to lay along an axis.

    `SPARSITY`, `PARAMETERS`, `MULTIPLY_ADDS`, `FILE_BYTES`, `ACCURACY` and `TOTAL_BITS`: each has a label, a
    function `of` from outcomes to values, and the form in which values are written.
    """

    SPARSITY = ("% of weights pruned", lambda outcome: 100 * outcome.sparsity, "{:.1f}")
    PARAMETERS = ("active parameters", lambda outcome: outcome.parameters, "{:,.0f}")
    MULTIPLY_ADDS = ("multiply–adds a case", lambda outcome: outcome.multiply_adds, "{:,.0f}")
    FILE_BYTES = ("file bytes", lambda outcome: outcome.file_bytes, "{:,.0f}")
    ACCURACY = ("accuracy of the decoded file (%)", lambda outcome: 100 * outcome.accuracy, "{:.2f}")
    TOTAL_BITS = ("model + data bits", lambda outcome: outcome.total_bits, "{:,.0f}")

    def __init__(self, label: str, of: Callable[[Outcome], float], form: str) -> None:
        self.label, self.of, self.form = label, of, form


@dataclass(frozen=True)
class Spread:
    """Several values: their mean, their sample standard deviation (0 of a single one), and themselves.

    Attributes:
        values: one or more.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return mean(self.values)

    @property
    def sd(self) -> float:
        """The sample standard deviation."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    def text(self, form: str) -> str:
        """Mean ± standard deviation, or the value alone that all are."""
        return form.format(self.mean) + (f" ± {form.format(self.sd)}" if self.sd else "")


def spread(outcomes: Iterable[Outcome], measure: Measure) -> Spread:
    """The values of a measure."""
    return Spread(tuple(measure.of(outcome) for outcome in outcomes))


def by_setting(trials: Sequence[Trial]) -> dict[str, list[list[Trial]]]:
    """Method → its settings, from the least sparse on, each the trials of its seeds."""
    found: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        found.setdefault(trial.method, {}).setdefault(trial.setting, []).append(trial)

    def sparsity(runs: list[Trial]) -> float:
        return mean(run.outcome.sparsity for run in runs)

    return {method: sorted(settings.values(), key=sparsity) for method, settings in found.items()}
