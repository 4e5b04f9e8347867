"""What an account's stages have in common: the shortest of them, and the dense network's size."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.description.ledger import DENSE
from laconic.report.stage import Stage


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
