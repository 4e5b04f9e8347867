"""Tables of runs, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from laconic.core.text import short
from laconic.description.ledger import Measurement
from laconic.recipes.results import Result
from laconic.report.trials import Quantity, spread

CAPTION = "Of decoded files. Parameters: not zero. MACs: by the layers' shapes."
HEADINGS = {
    Quantity.ACCURACY: "accuracy %",
    Quantity.SPARSITY: "sparsity %",
    Quantity.PARAMETERS: "params",
    Quantity.MULTIPLY_ADDS: "MACs",
    Quantity.FILE_BYTES: "bytes",
}


def table_of_one(results: Sequence[Result]) -> Table:
    """Dense → pruned, of one recipe's runs with different seeds."""
    table = _table("", ["dense", "pruned"])
    for quantity, heading in HEADINGS.items():
        sides = [[result.dense for result in results], [result.pruned for result in results]]
        table.add_row(heading, *(_text(side, quantity) for side in sides))
    return table


def table_of_many(results: Mapping[str, Sequence[Result]]) -> Table:
    """A line for each recipe, by name; accuracies before and after."""
    table = _table("recipe", ["dense %", "pruned %", *list(HEADINGS.values())[1:]])
    for name, runs in results.items():
        pruned = [result.pruned for result in runs]
        means = [_short(spread(pruned, m).mean, m) for m in list(HEADINGS)[1:]]
        dense = Quantity.ACCURACY.form.format(spread((run.dense for run in runs), Quantity.ACCURACY).mean)
        table.add_row(name, dense, _text(pruned, Quantity.ACCURACY), *means)
    return table


def _table(first: str, others: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="ellipsis", no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _short(value: float, quantity: Quantity) -> str:
    """As the quantity has it, but millions and more with three digits."""
    return short(value) if value >= 1e6 else quantity.form.format(value)


def _text(outcomes: Sequence[Measurement], quantity: Quantity) -> str:
    """The mean, with the standard deviation if there are several."""
    return spread(outcomes, quantity).text(quantity.form)
