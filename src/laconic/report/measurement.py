"""Measuring networks by the files they become: measurements, a table of them, and trials of several methods.

Trials that differ in nothing but their seed are summed up by means and sample standard deviations, as Blalock et al.
(2020) ask of pruning papers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from torch import nn

from laconic.datasets.adapter import TrainTest
from laconic.datasets.standard import Dataset
from laconic.description.describe import describe_decoded, evaluate
from laconic.description.ledger import DENSE, Ledger, Measurement
from laconic.file.container import Reader
from laconic.file.save_load import load, save
from laconic.model.modules import copied, n_nonzero
from laconic.model.selectors import compressible
from laconic.quantization.grid import Quantizer
from laconic.surgery.macs import count_macs
from laconic.surgery.plan import Plan
from laconic.surgery.shrink import shrink

if TYPE_CHECKING:
    from rich.table import Table

BATCH_SIZE = 4096
START = "at the start"  # what the first measurement is called where it is of no trained dense network


def measure(
    name: str,
    model: nn.Module,
    path: str | os.PathLike[str],
    data: Dataset | TrainTest,
    quantizer: Quantizer | None,
    plan: Plan | None = None,
) -> tuple[Measurement, nn.Module]:
    """Save `model` to `path`, decode the file once, and measure what was decoded; `model` is unchanged.

    Args:
        name: what the measurement is called.
        model: the network; where the plan makes tensors smaller it has zeros.
        path: the file to write.
        data: the training targets are coded, the test examples are judged by.
        quantizer: as for `save`.
        plan: what is saved is the model that it cuts.

    Returns:
        The measurement (`n_macs` is left out), and the decoded network.
    """
    n_bytes = save(shrink(model, plan) if plan else model, path, quantizer, plan=plan)
    decoded = load(path, into=copied(model))
    with Reader(path) as reader:
        ledger = describe_decoded(reader, decoded, data.train.batches(BATCH_SIZE))
    n_weights = sum(weight.numel() for weight in compressible(model).values())
    measured = Measurement(
        name,
        n_bytes=n_bytes,
        score=evaluate(decoded, data.test.batches(BATCH_SIZE)).accuracy,
        data_bits=ledger.data_bits,
        sparsity=1 - sum(map(n_nonzero, compressible(decoded).values())) / n_weights,
        n_parameters=sum(map(n_nonzero, decoded.parameters())),
        ledger=ledger,
    )
    return measured, decoded


def total_macs(model: nn.Module, inputs: Any) -> float:
    """Multiply–adds of one example in one forward pass, by the layers' shapes."""
    uses = count_macs(model, inputs)
    return sum(uses[name] * weight.numel() for name, weight in compressible(model).items())


def ledger_of(measured: Measurement) -> Ledger:
    """The ledger of a measurement; ValueError if it has none."""
    if measured.ledger is None:
        raise ValueError(f"{measured.name}: expected a measurement with a ledger, found none")
    return measured.ledger


def fewest_bits(measured: Sequence[Measurement]) -> int:
    """The index of the measurement with the shortest description; the first of equals.

    ValueError if there is none, or they describe different data, so that their totals do not compare.
    """
    if not measured:
        raise ValueError("measurements: expected at least one, found none")
    n_examples = sorted({one.ledger.n_examples for one in measured if one.ledger})
    if len(n_examples) > 1:
        raise ValueError(f"measurements: expected ledgers of the same data, found {n_examples} examples")
    totals = [one.total_bits for one in measured]
    return totals.index(min(totals))


def dense_float32_bits(measured: Sequence[Measurement]) -> float:
    """What the dense network takes in float32, as the first ledger has it, since later networks may be cut; or NaN."""
    ledger = next((one.ledger for one in measured if one.ledger), None)
    return ledger.references.get(DENSE, math.nan) if ledger else math.nan


def table(measured: Sequence[Measurement]) -> Table:
    """Score and bits of every measurement; the lowest total is marked."""
    from rich.table import Table
    from rich.text import Text

    shortest = measured[fewest_bits(measured)]
    columns = Table(caption="All figures are the decoded files'. ← fewest bits in all")
    for heading in ("", "accuracy", "active", "file", "model", "data", "total"):
        columns.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    columns.add_row("", "test", "parameters", "bytes", "bits", "bits", "bits", style="dim")
    for one in measured:
        columns.add_row(
            Text(one.name),
            f"{one.score:.2%}",
            f"{one.n_parameters:,.0f}",
            f"{one.n_bytes:,.0f}",
            f"{8 * one.n_bytes:,.0f}",
            f"{one.data_bits:,.0f}",
            f"{one.total_bits:,.0f}" + (" ←" if one is shortest else ""),
        )
    return columns


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

    `SPARSITY`, `PARAMETERS`, `MULTIPLY_ADDS`, `FILE_BYTES`, `ACCURACY`, `BITS_EACH` and `TOTAL_BITS`: each has
    a label, a function `of` from measurements to values, the form in which values are written, and a short name to
    follow them.
    """

    SPARSITY = ("% of weights pruned", lambda found: 100 * found.sparsity, "{:.1f}", "% pruned")
    PARAMETERS = ("active parameters", lambda found: found.n_parameters, "{:,.0f}", "active parameters")
    MULTIPLY_ADDS = ("multiply–adds an example", lambda found: found.n_macs, "{:,.0f}", "multiply–adds")
    FILE_BYTES = ("file bytes", lambda found: found.n_bytes, "{:,.0f}", "bytes")
    ACCURACY = ("accuracy of the decoded file (%)", lambda found: 100 * found.score, "{:.2f}", "% right")
    BITS_EACH = (
        "bits an active parameter",
        lambda found: 8 * found.n_bytes / max(found.n_parameters, 1),
        "{:.2f}",
        "bits each",
    )
    TOTAL_BITS = ("model + data bits", lambda found: found.total_bits, "{:,.0f}", "bits in all")

    def __init__(self, label: str, of: Callable[[Measurement], float], form: str, short: str) -> None:
        self.label, self.of, self.form, self.short = label, of, form, short


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
