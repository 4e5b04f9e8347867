"""Figures of a compression: what was given up, what was kept, and what it cost in bits.

Each is a function of values that returns a `matplotlib.figure.Figure`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from laconic.description.ledger import Measurement
from laconic.report.figures.style import BLUE, INK, STYLE, VERMILION, WIDTH, dress, key, need, shortened, single_axes
from laconic.report.measurement import dense_float32_bits, fewest_bits


@rc_context(STYLE)
def accuracy_by_sparsity(stages: Sequence[Measurement]) -> Figure:
    """Accuracy (%) against sparsity (%), with a dashed line at the first stage's accuracy."""
    need(stages, "stages: expected at least one Measurement, found none")
    sparsities = [100 * stage.sparsity for stage in stages]
    figure, ax = single_axes(3.2)
    pad = max(1.0, 0.06 * (max(sparsities) - min(sparsities)))
    ax.set_xlim(min(sparsities) - pad, max(sparsities) + pad)
    ax.xaxis.set_major_formatter(lambda at, _: f"{at:g}" if 0 <= at <= 100 else "")
    ax.set_xlabel("sparsity (% of weights that are zero)")
    _accuracy_curve(ax, stages, sparsities)
    return figure


@rc_context(STYLE)
def accuracy_by_active(stages: Sequence[Measurement]) -> Figure:
    """Accuracy (%) against active parameters, from many (left) to few (right), on a log axis."""
    need(stages, "stages: expected at least one Measurement, found none")
    # A log axis has no zero: a network with nothing left stands at 1.
    counts = [float(max(stage.n_parameters, 1)) for stage in stages]
    figure, ax = single_axes(3.2)
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


def _accuracy_curve(ax: Axes, stages: Sequence[Measurement], xs: Sequence[float]) -> None:
    ys = [100 * stage.score for stage in stages]
    pad = max(0.5, 0.15 * (max(ys) - min(ys)))
    ax.set_ylim(min(ys) - pad, max(ys) + pad)
    ax.yaxis.set_major_formatter(lambda at, _: f"{at:g}" if at <= 100 else "")
    ax.set_ylabel("accuracy of the decoded file (%)", rotation_mode="anchor")
    dashed = {"color": INK, "alpha": 0.6, "lw": 1, "ls": (0, (5, 4))}
    ax.axhline(ys[0], label=f"dense network: {ys[0]:.1f} %", **dashed)
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
        ax.annotate(
            shortened(stages[at].name, 18, head=9),
            (xs[at], ys[at]),
            xytext=(-7, -1) if falls else (0, -6) if rises else (0, 4),
            textcoords="offset points",
            ha="right" if falls else _side(spots[at][0]),
            va="top" if falls or rises else "bottom",
            fontsize=7,
            alpha=0.8,
        )


def _side(x: float) -> Literal["left", "center", "right"]:
    """Text near an end of the axis grows away from it."""
    return "left" if x < 0.15 else "right" if x > 0.85 else "center"


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
