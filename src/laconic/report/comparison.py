"""What an account's stages have in common: the shortest of them, the dense network's size, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from laconic.description.ledger import DENSE
from laconic.report.stage import Stage

if TYPE_CHECKING:
    from rich.table import Table


def fewest_bits(stages: Sequence[Stage]) -> int:
    """The index of the stage with the shortest description; ties go to the earlier stage.

    Raises:
        ValueError: if the stages describe different data, so that their totals do not compare.
    """
    if len(n_cases := sorted({stage.ledger.n_cases for stage in stages})) > 1:
        raise ValueError(f"stages: expected ledgers of the same data, found {n_cases} cases")
    totals = [stage.ledger.total_bits for stage in stages]
    return totals.index(min(totals))


def dense_float32_bits(stages: Sequence[Stage]) -> float | None:
    """What the dense network takes in float32, if a ledger's references name it."""
    return stages[-1].ledger.references.get(DENSE)


def table(stages: Sequence[Stage]) -> Table:
    """Accuracy and bits of every stage; the lowest total is marked."""
    from rich.table import Table

    shortest = stages[fewest_bits(stages)]
    columns = Table(caption="All figures are the decoded files'. ← fewest bits in all")
    for heading in ("", "accuracy", "active", "file", "model", "data", "total"):
        columns.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    columns.add_row("", "test", "parameters", "bytes", "bits", "bits", "bits", style="dim")
    for stage in stages:
        columns.add_row(
            stage.name,
            f"{stage.accuracy:.2%}",
            f"{stage.n_active:,}",
            f"{stage.file_bytes:,}",
            f"{stage.ledger.model_bits:,}",
            f"{stage.ledger.data_bits:,.0f}",
            f"{stage.ledger.total_bits:,.0f}" + (" ←" if stage is shortest else ""),
        )
    return columns
