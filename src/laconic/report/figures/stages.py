"""Figures of stages: what was given up for what, point by point, and what each stage cost in bits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from laconic.core.text import elided
from laconic.description.ledger import Ledger, Measurement
from laconic.report.figures.style import (
    BLUE,
    COLOURS,
    DASHED,
    GREY,
    HEIGHT,
    SMALLEST,
    STYLE,
    VERMILION,
    WIDTH,
    dress,
    key,
    log_ticks,
    need,
    points,
)
from laconic.report.measurement import Quantity, dense_float32_bits, fewest_bits

MAX_NAME = 30  # characters of a name above a bar
MAX_TENSORS, MAX_PARTS = 6, 4  # bars of tensors, and parts of them, that are drawn; the others are summed


@rc_context(STYLE)
def stage_curve(
    stages: Sequence[Measurement], x: Quantity = Quantity.FILE_BYTES, y: Quantity = Quantity.ACCURACY
) -> Figure:
    """One quantity against another, stage by stage, from much (left) to little (right) on a log axis.

    A dashed line is at the first stage's accuracy, and a ring around the stage of the fewest bits in all.

    Raises:
        ValueError: there are no stages.
    """
    need(stages, "stages: expected at least one Measurement, found none")
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    ax = figure.subplots()
    dress(ax)
    # A log axis has no zero: a network with nothing left stands at 1.
    xs, ys = [max(x.of(stage), 1.0) for stage in stages], [y.of(stage) for stage in stages]
    _scale(ax, xs, x)
    pad = max(0.5, 0.15 * (max(ys) - min(ys)))
    ax.set_ylim(min(ys) - pad, max(ys) + pad)
    most = 100 if y is Quantity.ACCURACY else math.inf
    ax.yaxis.set_major_formatter(lambda at, _: f"{at:g}" if at <= most else "")
    ax.set_ylabel(y.label, rotation_mode="anchor")
    if y is Quantity.ACCURACY:
        ax.axhline(ys[0], label=f"{stages[0].name}: {ys[0]:.2f} %", **DASHED)
    ax.plot(xs, ys, color=BLUE, lw=1.3)
    labels = [
        f"{s.name}: {s.score:.2%} right, {s.n_bytes:,.0f} bytes, {s.n_parameters:,.0f} active parameters"
        for s in stages
    ]
    points(ax, xs, ys, labels, color=BLUE)
    best = fewest_bits(stages)
    ring = {"ms": 10, "mfc": "none", "mec": VERMILION, "mew": 1.6, "ls": "none"}
    ax.plot(xs[best], ys[best], "o", label="fewest bits in all", **ring)
    ax.legend(loc="lower left" if y is Quantity.ACCURACY else "upper left")
    _name_points(ax, stages, xs, ys)
    return figure


def _scale(ax: Axes, amounts: Sequence[float], x: Quantity) -> None:
    ax.set_xscale("log")
    ax.set_xlim(max(amounts) * 1.6, min(amounts) / 1.6)
    few_decades = math.log10(max(amounts) / min(amounts)) < 1.7
    log_ticks(ax.xaxis, (1, 2, 5) if few_decades else (1,))
    ax.set_xlabel(f"{x.label} (log scale, many → few)")


def _name_points(ax: Axes, stages: Sequence[Measurement], xs: Sequence[float], ys: Sequence[float]) -> None:
    """Write stages' names at their points: the ends and the best first, the others where there is room."""
    to_axes = ax.transData - ax.transAxes
    spots = to_axes.transform(np.column_stack([xs, ys]))
    placed: list[NDArray[np.float64]] = []
    for at in dict.fromkeys([0, len(stages) - 1, fewest_bits(stages), *range(len(stages))]):
        if any((abs(spots[at] - other) < (0.26, 0.09)).all() for other in placed):
            continue
        placed.append(spots[at])
        # Room is above a point, but below it where the curve rises next, or left where it falls.
        falls = at > 0 and spots[at - 1][1] - spots[at][1] > 0.01 and spots[at][0] > 0.35
        rises = at + 1 < len(spots) and not falls and spots[at + 1][1] - spots[at][1] > 0.05
        # Text near an end of the axis grows away from it.
        side = "left" if spots[at][0] < 0.15 else "right" if spots[at][0] > 0.85 else "center"
        ax.annotate(
            elided(stages[at].name, 16),
            (xs[at], ys[at]),
            xytext=(-7, -1) if falls else (0, -6) if rises else (0, 5),
            textcoords="offset points",
            ha="right" if falls else "left" if rises else side,
            va="top" if falls or rises else "bottom",
            fontsize=SMALLEST,
        )


@rc_context(STYLE)
def description_bars(stages: Sequence[Measurement]) -> Figure:
    """Model bits and data bits of each stage, stacked, in kbit (1 kbit = 1,000 bits), and as numbers.

    Raises:
        ValueError: there are no stages, or they describe different data.
    """
    need(stages, "stages: expected at least one Measurement, found none")
    best = stages[fewest_bits(stages)]
    rows = [
        (
            elided(stage.name, MAX_NAME) + (" (fewest)" if stage is best else ""),
            (8 * stage.n_bytes / 1000, stage.data_bits / 1000),
            f"{_kbit(8 * stage.n_bytes)} + {_kbit(stage.data_bits)}",
        )
        for stage in stages
    ]
    figure, ax = _bars(rows, (BLUE, VERMILION), bold=stages.index(best))
    dense = dense_float32_bits(stages)
    note = f"; float32 would take {_kbit(dense)}" if dense > 0 else ""
    ax.set_xlabel(f"description length (kbit){note}")
    key(figure, {"model bits": BLUE, "+ data bits": VERMILION})
    return figure


@rc_context(STYLE)
def bits_by_tensor(ledger: Ledger) -> Figure:
    """Where the bits of a file went: the tensors that take most, each by its parts, in bytes.

    Raises:
        ValueError: nothing in the ledger was measured.
    """
    measured = [row for row in ledger.rows if row.measured]
    need(measured, "ledger: expected rows of a file, found none")
    totals = ledger.by_tensor()
    tensors = _largest({name: bits for name, bits in totals.items() if name}, MAX_TENSORS)
    parts = _largest({part: sum(r.bits for r in measured if r.part == part) for part in ledger.by_part()}, MAX_PARTS)
    bars = {**{name: name for name in tensors}, None: "all others", "": "the file as a whole"}
    bytes_of = {bar: dict.fromkeys((*parts, None), 0.0) for bar in bars}
    for row in measured:
        bar = row.tensor if row.tensor in bytes_of else None
        bytes_of[bar][row.part if row.part in parts else None] += row.bits / 8
    rows = [
        (elided(label, MAX_NAME), tuple(bytes_of[bar].values()), f"{sum(bytes_of[bar].values()):,.0f}")
        for bar, label in bars.items()
        if any(bytes_of[bar].values())
    ]
    colours = (*COLOURS[: len(parts)], GREY)
    figure, ax = _bars(rows, colours)
    ax.set_xlabel("bytes")
    key(figure, dict(zip((*parts, "other parts"), colours, strict=True)))
    return figure


def _largest(bits: dict[str, float], n: int) -> list[str]:
    return sorted(bits, key=lambda name: -bits[name])[:n]


def _bars(
    rows: Sequence[tuple[str, Sequence[float], str]], colours: Sequence[str], bold: int = -1
) -> tuple[Figure, Axes]:
    """Stacked bars, each with its name and its numbers above it, where a phone has room for them."""
    figure = Figure(figsize=(WIDTH, max(HEIGHT, 0.34 * len(rows) + 1.0)), layout="constrained")
    ax = figure.subplots()
    dress(ax)
    longest = max(sum(values) for _, values, _ in rows) or 1.0
    ax.set_xlim(0, longest)
    ax.set_ylim(len(rows) - 0.55, -0.75)
    for y, (name, values, numbers) in enumerate(rows):
        left = 0.0
        for value, colour in zip(values, colours, strict=True):
            ax.barh(y, value, height=0.36, left=left, color=colour)
            left += value
        text = {"va": "bottom", "fontsize": SMALLEST, "weight": "bold" if y == bold else "normal"}
        ax.text(0, y - 0.22, name, **text)
        ax.text(longest, y - 0.22, numbers, ha="right", **text)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_formatter(lambda at, _: f"{at:,.10g}")
    return figure, ax


def _kbit(bits: float) -> str:
    return f"{bits / 1000:,.{0 if bits >= 1e6 else 1 if bits >= 1e5 else 2}f}"
