"""Frontiers: several methods, one quantity against another, with means and deviations over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laconic.core.text import elided
from laconic.description.ledger import Measurement
from laconic.report.figures.style import COLOURS, DASHED, HEIGHT, MARKERS, STYLE, WIDTH, dress, log_ticks, need, points
from laconic.report.measurement import Quantity, Spread, Trial, by_setting

NEAR_THE_TOP = 5.0  # points of accuracy that are magnified, where some methods lose many more


@rc_context(STYLE)
def frontier(
    trials: Sequence[Trial], x: Quantity = Quantity.SPARSITY, y: Quantity = Quantity.ACCURACY, legend: bool = True
) -> Figure:
    """One quantity against another, a line for each method; further right, less is left of the network.

    Lines join the means over seeds, bars reach one sample standard deviation to both sides, and faint dots
    are the trials themselves. Dashed: the mean of the dense networks, where `y` is known of them. All axes
    but that of accuracy are logarithmic; sparsity's by what is left. Where some methods lose very much
    accuracy, what is near the top is drawn again, magnified.

    Args:
        trials: of one or more methods; those of equal method and setting are averaged.
        x: along the horizontal axis.
        y: along the vertical axis.
        legend: whether to say which line is which method's.

    Raises:
        ValueError: there is no trial, or one has no finite value.
    """
    need(trials, "trials: expected at least one Trial, found none")
    for trial in trials:
        for quantity in (x, y):
            if not math.isfinite(value := quantity.of(trial.pruned)):
                raise ValueError(f"{trial.method}: expected a finite {quantity.label}, found {value}")
    top = _top(trials) if y is Quantity.ACCURACY else None
    n_panels = 1 if top is None else 2
    methods = by_setting(trials)
    n_lines = len(methods) + 1 if legend else 0
    figure = Figure(figsize=(WIDTH, HEIGHT * (1 + n_panels) / 2 + 0.17 * n_lines), layout="constrained")
    grid = figure.subplots(n_panels, squeeze=False, sharex=True)[:, 0]
    for ax in grid:
        dress(ax)
        ax.margins(0.08)
        for at, (method, settings) in enumerate(methods.items()):
            _line(ax, method, settings, (x, y), look_of(at))
        _dense(ax, trials, y)
        _scale(ax, "y", y)
        ax.yaxis.label.set_rotation_mode("anchor")
    _scale(grid[-1], "x", x)
    grid[-1].invert_xaxis()
    if top is not None:
        grid[1].set_ylim(top)
        grid[1].set_ylabel("the same, magnified")
    if legend:
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower left")
    return figure


def look_of(at: int) -> dict[str, str]:
    """Colour and marker of a method, by its place among the methods; they go round at different paces."""
    return {"color": COLOURS[at % len(COLOURS)], "marker": MARKERS[at % len(MARKERS)]}


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
    means = [x.mean for x in xs], [y.mean for y in ys]
    ax.plot(*means, label=elided(label, 44), ms=7, lw=1.3, mec="white", mew=0.5, zorder=3, **look)
    quantities = [Quantity.ACCURACY, *(quantity for quantity in axes if quantity is not Quantity.ACCURACY)]
    labels = []
    for runs in settings:
        found = [(quantity, Spread(tuple(quantity.of(run.pruned) for run in runs))) for quantity in quantities]
        values = ", ".join(f"{spread.text(quantity.form)} {quantity.short}" for quantity, spread in found)
        labels.append(f"{label}: {values}; {len(runs)} seed{'s' * (len(runs) > 1)}")
    points(ax, *means, labels, alpha=0)
    for x, y in zip(xs, ys, strict=True):
        if len(x.values) > 1:
            ax.plot(x.values, y.values, ls="none", ms=3, alpha=0.4, mew=0, zorder=2, **look)
            bars = {"ecolor": look["color"], "elinewidth": 1, "capsize": 2, "zorder": 3}
            ax.errorbar(x.mean, y.mean, y.sd, x.sd, fmt="none", **bars)


def _dense(ax: Axes, trials: Sequence[Trial], y: Quantity) -> None:
    values = [_position(y, trial.dense) for trial in trials if trial.dense]
    if values and math.isfinite(level := mean(values)):
        unit = " %" if y is Quantity.ACCURACY else ""
        ax.axhline(level, label=f"dense network: {y.form.format(level)}{unit}", **DASHED)


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
    low, high = sorted(ax.get_xlim() if name == "x" else ax.get_ylim())
    if low > 0 and high < 3 * low:  # what hardly differs is not drawn as if it did
        ax.set(**{f"{name}lim": (low / 1.3, high * 1.3)})
    log_ticks(axis)
    if quantity is Quantity.SPARSITY:
        axis.set_major_formatter(lambda left, _: f"{100 - left:.6g}" if left <= 100 else "")
