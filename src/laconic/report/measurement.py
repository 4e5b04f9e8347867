"""Measuring a network by the file it becomes, and a table of such measurements."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from laconic.datasets.adapter import TrainTest
from laconic.datasets.standard import Dataset
from laconic.description.describe import describe_decoded, evaluate
from laconic.description.ledger import DENSE, Ledger, Measurement
from laconic.file.container import Reader
from laconic.file.save_load import load, save
from laconic.model.modules import n_nonzero
from laconic.model.selectors import compressible
from laconic.quantization.grid import Quantizer
from laconic.surgery.macs import count_macs
from laconic.surgery.plan import Plan
from laconic.surgery.shrink import shrink

if TYPE_CHECKING:
    from rich.table import Table

BATCH_SIZE = 4096


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
    decoded = load(path, into=copy.deepcopy(model))
    with Reader(path) as reader:
        ledger = describe_decoded(reader, decoded, data.train.batches(BATCH_SIZE))
    n_weights = sum(weight.numel() for weight in compressible(model).values())
    measured = Measurement(
        name,
        n_bytes=n_bytes,
        score=evaluate(decoded, data.test.batches(BATCH_SIZE)).accuracy,
        data_bits=ledger.data_bits,
        sparsity=1 - _n_nonzero(compressible(decoded).values()) / n_weights,
        n_parameters=_n_nonzero(decoded.parameters()),
        ledger=ledger,
    )
    return measured, decoded


def total_macs(model: nn.Module, inputs: Any) -> float:
    """Multiply–adds of one example in one forward pass, by the layers' shapes."""
    uses = count_macs(model, inputs)
    return sum(uses[name] * weight.numel() for name, weight in compressible(model).items())


def ledger_of(measured: Measurement) -> Ledger:
    """The ledger of a measurement.

    Raises:
        ValueError: it has none.
    """
    if measured.ledger is None:
        raise ValueError(f"{measured.name}: expected a measurement with a ledger, found none")
    return measured.ledger


def fewest_bits(measured: Sequence[Measurement]) -> int:
    """The index of the measurement with the shortest description; the first of equals.

    Raises:
        ValueError: there is none, or they describe different data, so that their totals do not compare.
    """
    if not measured:
        raise ValueError("measurements: expected at least one, found none")
    n_examples = sorted({one.ledger.n_examples for one in measured if one.ledger})
    if len(n_examples) > 1:
        raise ValueError(f"measurements: expected ledgers of the same data, found {n_examples} examples")
    totals = [one.total_bits for one in measured]
    return totals.index(min(totals))


def dense_float32_bits(measured: Sequence[Measurement]) -> float:
    """What the dense network takes in float32, as far as the last ledger tells; NaN if it does not."""
    return ledger_of(measured[-1]).references.get(DENSE, math.nan)


def table(measured: Sequence[Measurement]) -> Table:
    """Score and bits of every measurement; the lowest total is marked."""
    from rich.table import Table

    shortest = measured[fewest_bits(measured)]
    columns = Table(caption="All figures are the decoded files'. ← fewest bits in all")
    for heading in ("", "accuracy", "active", "file", "model", "data", "total"):
        columns.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    columns.add_row("", "test", "parameters", "bytes", "bits", "bits", "bits", style="dim")
    for one in measured:
        columns.add_row(
            one.name,
            f"{one.score:.2%}",
            f"{one.n_parameters:,.0f}",
            f"{one.n_bytes:,.0f}",
            f"{8 * one.n_bytes:,.0f}",
            f"{one.data_bits:,.0f}",
            f"{one.total_bits:,.0f}" + (" ←" if one is shortest else ""),
        )
    return columns


def _n_nonzero(parameters: Iterable[Tensor]) -> int:
    return sum(map(n_nonzero, parameters))
