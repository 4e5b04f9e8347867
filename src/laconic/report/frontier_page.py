"""Several methods on one self-contained page: their frontiers, and a table of means and deviations."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from laconic.atomic import atomic
from laconic.report.drawing import need
from laconic.report.frontier_figure import frontier
from laconic.report.template import framed, render
from laconic.report.trials import Measure, Spread, Trial, by_setting, spread

FIGURES = {
    "Accuracy against sparsity": (Measure.SPARSITY, Measure.ACCURACY),
    "Accuracy against the file's length": (Measure.FILE_BYTES, Measure.ACCURACY),
    "Accuracy against multiply–adds, by the layers' shapes": (Measure.MULTIPLY_ADDS, Measure.ACCURACY),
    "Bits for the file and for the data given the network": (Measure.SPARSITY, Measure.TOTAL_BITS),
}
HEADINGS = {
    Measure.SPARSITY: "sparsity (%)",
    Measure.ACCURACY: "accuracy (%)",
    Measure.PARAMETERS: "active parameters",
    Measure.MULTIPLY_ADDS: "multiply–adds",
    Measure.FILE_BYTES: "file bytes",
    Measure.TOTAL_BITS: "total bits",
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
        trials: from `laconic.trials`, or made by hand.
        settings: what all trials share, by name.
        notes: sentences to read before the figures.

    Raises:
        ValueError: there is no trial.
    """
    need(trials, "trials: expected at least one Trial, found none")
    known = [measure for measure in Measure if _known(measure, trials)]
    shown = {measure: heading for measure, heading in HEADINGS.items() if measure in known}
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
    with atomic(path) as file:
        file.write(text.encode())
    return Path(path)


def _known(measure: Measure, trials: Sequence[Trial]) -> bool:
    return all(math.isfinite(measure.of(trial.outcome)) for trial in trials)


def _spread(runs: Sequence[Trial], measure: Measure) -> Spread:
    return spread((run.outcome for run in runs), measure)


def _figures(trials: Sequence[Trial], known: Sequence[Measure]) -> dict[str, Figure]:
    varying = [m for m in known if len({m.of(trial.outcome) for trial in trials}) > 1]
    return {
        caption: frontier(trials, x, y) for caption, (x, y) in FIGURES.items() if x in varying and y in known
    }


def _headline(trials: Sequence[Trial]) -> str:
    """How much there is, and how good the dense networks are."""
    n_methods, n_seeds = len({trial.method for trial in trials}), len({trial.seed for trial in trials})
    words = f"{_count(n_methods, 'method')}, {_count(len(trials), 'run')}, {_count(n_seeds, 'seed')}"
    dense = [trial.dense for trial in trials if trial.dense and math.isfinite(trial.dense.accuracy)]
    if not dense:
        return f"{words}."
    accuracy = spread(dense, Measure.ACCURACY)
    return f"{words}; the dense network gets {accuracy.mean:.2f} % of the test cases right."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
