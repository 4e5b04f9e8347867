"""Trials: what several methods came to, each at several settings, each with several seeds.

Trials that differ in nothing but their seed are summed up by means and sample standard deviations, as
Blalock et al. (2020) ask of pruning papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import mean, stdev

from laconic.description.ledger import Measurement


@dataclass(frozen=True)
class Trial:
    """One run of one method.

    Attributes:
        method: its name, as figures show it.
        seed: what it was run with.
        pruned: the pruned network.
        setting: what it shares with runs of other seeds, such as the amount asked for.
        dense: the network before.
    """

    method: str
    seed: int
    pruned: Measurement
    setting: str = ""
    dense: Measurement | None = None


class Quantity(Enum):
    """What to lay along an axis.

    `SPARSITY`, `PARAMETERS`, `MULTIPLY_ADDS`, `FILE_BYTES`, `ACCURACY` and `TOTAL_BITS`: each has a label, a
    function `of` from measurements to values, and the form in which values are written.
    """

    SPARSITY = ("% of weights pruned", lambda found: 100 * found.sparsity, "{:.1f}")
    PARAMETERS = ("active parameters", lambda found: found.n_parameters, "{:,.0f}")
    MULTIPLY_ADDS = ("multiply–adds an example", lambda found: found.n_macs, "{:,.0f}")
    FILE_BYTES = ("file bytes", lambda found: found.n_bytes, "{:,.0f}")
    ACCURACY = ("accuracy of the decoded file (%)", lambda found: 100 * found.score, "{:.2f}")
    TOTAL_BITS = ("model + data bits", lambda found: found.total_bits, "{:,.0f}")

    def __init__(self, label: str, of: Callable[[Measurement], float], form: str) -> None:
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


def spread(measured: Iterable[Measurement], quantity: Quantity) -> Spread:
    """The values of a quantity."""
    return Spread(tuple(quantity.of(one) for one in measured))


def by_setting(trials: Sequence[Trial]) -> dict[str, list[list[Trial]]]:
    """Method → its settings, from the least sparse on, each the trials of its seeds."""
    found: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        found.setdefault(trial.method, {}).setdefault(trial.setting, []).append(trial)

    def sparsity(runs: list[Trial]) -> float:
        return mean(run.pruned.sparsity for run in runs)

    return {method: sorted(settings.values(), key=sparsity) for method, settings in found.items()}
