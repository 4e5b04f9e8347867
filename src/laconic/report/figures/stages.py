"""Figures of stages and trials: what was given up, what was kept, and what it cost in bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from laconic.description.ledger import Measurement
from laconic.report.figures.style import BLUE, DASHED, GREY, STYLE, VERMILION, WIDTH, dress, key, need, shortened
from laconic.report.measurement import Quantity, Spread, Trial, by_setting, dense_float32_bits, fewest_bits


@rc_context(STYLE)
def accuracy_by_sparsity(stages: Sequence[Measurement]) -> Figure:
    """Accuracy (%) against sparsity (%), with a dashed line at the first stage's accuracy."""
    figure, ax = _axes_of(stages)
    sparsities = [100 * stage.sparsity for stage in stages]
    pad = max(1.0, 0.06 * (max(sparsities) - min(sparsities)))
    ax.set_xlim(min(sparsities) - pad, max(sparsities) + pad)
    ax.xaxis.set_major_formatter(lambda at, _: f"{at:g}" if 0 <= at <= 100 else "")
    ax.set_xlabel("sparsity (% of weights that are zero)")
    _accuracy_curve(ax, stages, sparsities)
    return figure


@rc_context(STYLE)
def accuracy_by_active(stages: Sequence[Measurement]) -> Figure:
    """Accuracy (%) against active parameters, from many (left) to few (right), on a log axis."""
    figure, ax = _axes_of(stages)
    # A log axis has no zero: a network with nothing left stands at 1.
    counts = [float(max(stage.n_parameters, 1)) for stage in stages]
    ax.set_xscale("log")
    ax.set_xlim(max(counts) * 1.6, min(counts) / 1.6)
    few_decades = math.log10(max(counts) / min(counts)) < 2.3
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("active parameters (log scale, many → few)")
    _accuracy_curve(ax, stages, counts)
    return figure


@rc_context(STYLE)
def description_bars(stages: Sequence[Measurement]) -> Figure:
    """Model bits and data bits of each stage, stacked, in kbit (1 kbit = 1,000 bits).

    When the shortest descriptions are slivers beside the longest, they are drawn again, magnified.
    """
    need(stages, "stages: expected at least one Measurement, found none")
    best = stages[fewest_bits(stages)]
    totals = [stage.total_bits for stage in stages]
    short = [s for s in stages if s.total_bits <= 4 * min(totals)]
    magnify = len(short) > 1 and max(totals) > 8 * min(totals)
    groups = [list(stages), short] if magnify else [list(stages)]
    n_bars = [len(group) for group in groups]
    figure = Figure(figsize=(WIDTH, 0.4 * sum(n_bars) + 0.7 * len(groups) + 0.5))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(groups), squeeze=False, height_ratios=[n + 0.4 for n in n_bars])
    for ax, group in zip(panels[:, 0], groups, strict=True):
        _bars(ax, group, best)
    panels[-1, 0].set_xlabel("description length (kbit)", fontsize=8)
    if magnify:
        panels[1, 0].set_title("the shortest of them, magnified", loc="left", fontsize=9)
    key(figure, {"model bits": BLUE, "data bits": VERMILION}, above=True)
    if (dense := dense_float32_bits(stages)) > 0:
        note = f"Not drawn: the dense network in float32, {_kbit(dense)}."
        figure.supxlabel(note, fontsize=8, x=0.01, ha="left")
    return figure


def _axes_of(stages: Sequence[Measurement]) -> tuple[Figure, Axes]:
    """A figure of one axes, as wide as a phone's page."""
    need(stages, "stages: expected at least one Measurement, found none")
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    ax = figure.subplots()
    dress(ax)
    return figure, ax


def _accuracy_curve(ax: Axes, stages: Sequence[Measurement], xs: Sequence[float]) -> None:
    ys = [100 * stage.score for stage in stages]
    pad = max(0.5, 0.15 * (max(ys) - min(ys)))
    ax.set_ylim(min(ys) - pad, max(ys) + pad)
    ax.yaxis.set_major_formatter(lambda at, _: f"{at:g}" if at <= 100 else "")
    ax.set_ylabel("accuracy of the decoded file (%)", rotation_mode="anchor")
    ax.axhline(ys[0], label=f"dense network: {ys[0]:.1f} %", **DASHED)
    ax.plot(xs, ys, color=BLUE, marker="o", ms=4, lw=1.3)
    best = fewest_bits(stages)
    ring = {"ms": 9, "mfc": "none", "mec": VERMILION, "mew": 1.6, "ls": "none"}
    ax.plot(xs[best], ys[best], "o", label="fewest bits in total", **ring)
    ax.legend(loc="lower left")
    _name_points(ax, stages, xs, ys)


def _name_points(ax: Axes, stages: Sequence[Measurement], xs: Sequence[float], ys: Sequence[float]) -> None:
    """Write stages' names over their points: the ends first, the others where there is room."""
    to_axes = ax.transData - ax.transAxes
    spots = to_axes.transform(np.column_stack([xs, ys]))
    placed: list[NDArray[np.float64]] = []
    for at in dict.fromkeys([0, len(stages) - 1, fewest_bits(stages), *range(len(stages))]):
        if any((abs(spots[at] - other) < (0.19, 0.08)).all() for other in placed):
            continue
        placed.append(spots[at])
        # Room is above a point, but below it where the curve rises next, or left where it falls.
        falls = at > 0 and spots[at - 1][1] - spots[at][1] > 0.01
        rises = at + 1 < len(spots) and spots[at + 1][1] - spots[at][1] > 0.05
        # Text near an end of the axis grows away from it.
        side = "left" if spots[at][0] < 0.15 else "right" if spots[at][0] > 0.85 else "center"
        ax.annotate(
            shortened(stages[at].name, 18, head=9),
            (xs[at], ys[at]),
            xytext=(-7, -1) if falls else (0, -6) if rises else (0, 4),
            textcoords="offset points",
            ha="right" if falls else side,
            va="top" if falls or rises else "bottom",
            fontsize=7,
            alpha=0.8,
        )


def _bars(ax: Axes, stages: Sequence[Measurement], best: Measurement) -> None:
    """Horizontal bars with the stage's name above each, where a phone has room for it."""
    dress(ax)
    longest = max(stage.total_bits for stage in stages) or 1.0
    ax.set_xlim(0, 1.27 * longest / 1000)
    ax.set_ylim(len(stages) - 0.5, -0.75)
    for y, stage in enumerate(stages):
        model, data = 8 * stage.n_bytes / 1000, stage.data_bits / 1000
        ax.barh(y, model, height=0.42, color=BLUE)
        ax.barh(y, data, height=0.42, left=model, color=VERMILION)
        weight = "bold" if stage is best else "normal"
        name = shortened(stage.name, 40, head=20) + (" (fewest bits)" if stage is best else "")
        ax.text(0, y - 0.27, name, va="bottom", fontsize=8, weight=weight)
        end = (model + data, y)
        total = _kbit(stage.total_bits)
        ax.annotate(total, end, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, weight=weight)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")


def _kbit(bits: float) -> str:
    return f"{bits / 1000:,.{1 if bits >= 10_000 else 2}f} kbit"


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
        for at, (method, settings) in enumerate(methods.items()):
            look = {"color": COLOURS[at % len(COLOURS)], "marker": MARKERS[at % len(MARKERS)]}
            _line(ax, shortened(method, 44, head=22), settings, (x, y), look)
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
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    if quantity is Quantity.SPARSITY:
        axis.set_major_formatter(lambda left, _: f"{100 - left:.6g}" if left <= 100 else "")
    else:
        axis.set_major_formatter(EngFormatter(sep=""))
