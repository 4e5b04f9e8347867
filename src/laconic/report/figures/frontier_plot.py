"""The frontier: how much each method keeps of a network's worth, the more of it is pruned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from laconic.description.ledger import Measurement
from laconic.report.figures.style import BLUE, GREY, INK, STYLE, VERMILION, WIDTH, dress, need, shortened
from laconic.report.trials import Quantity, Spread, Trial, by_setting

# Okabe & Ito's colours. Markers go round at another pace, so that no two of 30 methods look alike.
COLOURS = (BLUE, VERMILION, "#009e73", "#cc79a7", "#e69f00", GREY)
MARKERS = ("o", "s", "^", "D", "v")
NEAR_THE_TOP = 5.0  # points of accuracy that are magnified, where some methods lose many more


@rc_context(STYLE)
def frontier(trials: Sequence[Trial], x: Quantity = Quantity.SPARSITY, y: Quantity = Quantity.ACCURACY) -> Figure:
    """One quantity against another, a line for each method; further right, less is left of the network.

    Lines join the means over seeds, bars reach one sample standard deviation to both sides, and faint dots
    are the trials themselves. Dashed: the mean of the dense networks, where `y` is known of them. All axes
    but that of accuracy are logarithmic; sparsity's by what is left. Where some methods lose very much
    accuracy, what is near the top is drawn again, magnified.

    Args:
        trials: of one or more methods; those of equal method and setting are averaged.
        x: along the horizontal axis.
        y: along the vertical axis.

    Raises:
        ValueError: there is no trial, or one has no finite value.
    """
    need(trials, "trials: expected at least one Trial, found none")
    for trial in trials:
        for quantity in (x, y):
            if not math.isfinite(value := quantity.of(trial.pruned)):
                raise ValueError(f"{trial.method}: expected a finite {quantity.label}, found {value}")
    top = _top(trials) if y is Quantity.ACCURACY else None
    heights = [2.5] if top is None else [2.3, 2.3]
    methods = by_setting(trials)
    n_columns = 2 if max(map(len, methods)) <= 24 else 1
    n_lines = math.ceil((len(methods) + 1) / n_columns)
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.6 + 0.17 * n_lines), layout="constrained")
    grid = figure.subplots(len(heights), squeeze=False, sharex=True)[:, 0]
    for ax in grid:
        dress(ax)
        ax.margins(0.06)
        _draw(ax, methods, x, y)
        _dense(ax, trials, y)
        _scale(ax, "y", y)
        ax.yaxis.label.set_rotation_mode("anchor")
    _scale(grid[-1], "x", x)
    grid[-1].invert_xaxis()
    if top is not None:
        grid[1].set_ylim(top)
        grid[1].set_ylabel("the same, magnified")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=n_columns)
    return figure


def _draw(ax: Axes, methods: Mapping[str, Sequence[Sequence[Trial]]], x: Quantity, y: Quantity) -> None:
    for at, (method, settings) in enumerate(methods.items()):
        look = {"color": COLOURS[at % len(COLOURS)], "marker": MARKERS[at % len(MARKERS)]}
        _line(ax, shortened(method, 44, head=22), settings, (x, y), look)


def _top(trials: Sequence[Trial]) -> tuple[float, float] | None:
    """The limits of what to magnify: some points near the best, if others are very far from it."""
    values = [100 * t.pruned.score for t in trials]
    values += [100 * t.dense.score for t in trials if t.dense and math.isfinite(t.dense.score)]
    best, near = max(values), [value for value in values if value >= max(values) - NEAR_THE_TOP]
    if best - min(values) < 4 * NEAR_THE_TOP or len(near) < 3:
        return None
    return best - NEAR_THE_TOP, best + 0.1 * NEAR_THE_TOP


def _position(quantity: Quantity, outcome: Measurement) -> float:
    """Where an outcome stands on an axis: sparsity by what is left, and nothing left at the axis's end."""
    if quantity is Quantity.SPARSITY:
        return max(100 - quantity.of(outcome), 0.001)
    return quantity.of(outcome) if quantity is Quantity.ACCURACY else max(quantity.of(outcome), 1.0)


def _line(
    ax: Axes, label: str, settings: Sequence[Sequence[Trial]], axes: tuple[Quantity, Quantity], look: Any
) -> None:
    """A method: each seed faint, means joined, and standard deviations as bars."""
    xs, ys = (
        [Spread(tuple(_position(quantity, run.pruned) for run in runs)) for runs in settings] for quantity in axes
    )
    ax.plot([x.mean for x in xs], [y.mean for y in ys], label=label, ms=4.5, lw=1.3, zorder=3, **look)
    for x, y in zip(xs, ys, strict=True):
        if len(x.values) > 1:
            ax.plot(x.values, y.values, ls="none", ms=3, alpha=0.4, mew=0, zorder=2, **look)
            bars = {"ecolor": look["color"], "elinewidth": 1, "capsize": 2, "zorder": 3}
            ax.errorbar(x.mean, y.mean, y.sd, x.sd, fmt="none", **bars)


def _dense(ax: Axes, trials: Sequence[Trial], y: Quantity) -> None:
    values = [_position(y, trial.dense) for trial in trials if trial.dense]
    if values and math.isfinite(level := mean(values)):
        unit = " %" if y is Quantity.ACCURACY else ""
        label = f"dense network: {y.form.format(level)}{unit}"
        ax.axhline(level, label=label, color=INK, alpha=0.6, lw=1, ls=(0, (5, 4)))


def _scale(ax: Axes, name: Literal["x", "y"], quantity: Quantity) -> None:
    """Dress an axis: linear for accuracy, logarithmic for all else."""
    axis = ax.xaxis if name == "x" else ax.yaxis
    of = " of what is left" if quantity is Quantity.SPARSITY else ""
    log = "" if quantity is Quantity.ACCURACY else f" (log scale{of})"
    ax.set(**{f"{name}label": f"{quantity.label}{log}"})
    if not log:
        axis.set_major_formatter(lambda at, _: f"{at:g}" if 0 <= at <= 100 else "")
        return
    ax.set(**{f"{name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    if quantity is Quantity.SPARSITY:
        axis.set_major_formatter(lambda left, _: f"{100 - left:.6g}" if left <= 100 else "")
    else:
        axis.set_major_formatter(EngFormatter(sep=""))
