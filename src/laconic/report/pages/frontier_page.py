"""Several methods on one self-contained page: their frontiers, and a table of means and deviations."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from laconic.report.figures.frontier_plot import frontier
from laconic.report.figures.style import need
from laconic.report.pages.rendering import framed, render, write
from laconic.report.trials import Quantity, Spread, Trial, by_setting, spread

FIGURES = {
    "Accuracy against sparsity": (Quantity.SPARSITY, Quantity.ACCURACY),
    "Accuracy against the file's length": (Quantity.FILE_BYTES, Quantity.ACCURACY),
    "Accuracy against multiply–adds, by the layers' shapes": (Quantity.MULTIPLY_ADDS, Quantity.ACCURACY),
    "Bits for the file and for the data given the network": (Quantity.SPARSITY, Quantity.TOTAL_BITS),
}
HEADINGS = {
    Quantity.SPARSITY: "sparsity (%)",
    Quantity.ACCURACY: "accuracy (%)",
    Quantity.PARAMETERS: "active parameters",
    Quantity.MULTIPLY_ADDS: "multiply–adds",
    Quantity.FILE_BYTES: "file bytes",
    Quantity.TOTAL_BITS: "total bits",
}


def write_frontier_page(
    path: str | os.PathLike[str],
    title: str,
    trials: Sequence[Trial],
    settings: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write a page of frontiers and their numbers to `path`: all of it or, if anything fails, nothing.

    Measures that some trial does not know, or that are the same in all, are left out.

    Args:
        path: of the page.
        title: the page's heading.
        trials: from `laconic.recipes.trials`, or made by hand.
        settings: what all trials share, by name.
        notes: sentences to read before the figures.

    Raises:
        ValueError: there is no trial.
    """
    need(trials, "trials: expected at least one Trial, found none")
    known = [quantity for quantity in Quantity if _known(quantity, trials)]
    shown = {quantity: heading for quantity, heading in HEADINGS.items() if quantity in known}
    methods = {
        method: [(len(runs), [_spread(runs, m).text(m.form) for m in shown]) for runs in settings]
        for method, settings in by_setting(trials).items()
    }
    text = render(
        "frontier.html",
        title=title,
        headline=_headline(trials),
        headings=list(shown.values()),
        methods=methods,
        figures=framed(_figures(trials, known)),
        settings=settings or {},
        notes=notes,
    )
    return write(path, text)


def _known(quantity: Quantity, trials: Sequence[Trial]) -> bool:
    return all(math.isfinite(quantity.of(trial.pruned)) for trial in trials)


def _spread(runs: Sequence[Trial], quantity: Quantity) -> Spread:
    return spread((run.pruned for run in runs), quantity)


def _figures(trials: Sequence[Trial], known: Sequence[Quantity]) -> dict[str, Figure]:
    varying = [m for m in known if len({m.of(trial.pruned) for trial in trials}) > 1]
    return {caption: frontier(trials, x, y) for caption, (x, y) in FIGURES.items() if x in varying and y in known}


def _headline(trials: Sequence[Trial]) -> str:
    """How much there is, and how good the dense networks are."""
    n_methods, n_seeds = len({trial.method for trial in trials}), len({trial.seed for trial in trials})
    words = f"{_count(n_methods, 'method')}, {_count(len(trials), 'run')}, {_count(n_seeds, 'seed')}"
    dense = [trial.dense for trial in trials if trial.dense and math.isfinite(trial.dense.score)]
    if not dense:
        return f"{words}."
    accuracy = spread(dense, Quantity.ACCURACY)
    return f"{words}; the dense network gets {accuracy.mean:.2f} % of the test examples right."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
