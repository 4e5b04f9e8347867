"""What the figures share: one style, one palette, and axes dressed in them.

Text and axes are drawn in `INK`, which a page replaces by its own colour of text; the rest
follows Okabe & Ito (2008), whose colours colour-blind readers tell apart, with a lighter blue that
stands out on light and dark ground alike.
Figures are as narrow as a phone's page, where their smallest text is still 11 pixels high, and of one height, so that
they stand on an even grid. They are made without pyplot, so nothing is shared or left open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

INK = "#1b1b1f"
BLUE, VERMILION, GREY = "#1f83c4", "#d55e00", "#8c8c94"
WIDTH, HEIGHT = 3.75, 3.3
SMALLEST = 9  # points, of all text
# Okabe & Ito's colours, and markers, of which methods have one each.
COLOURS = (BLUE, VERMILION, "#009e73", "#cc79a7", "#e69f00", GREY)
MARKERS = ("o", "s", "^", "D", "v")
DASHED: dict[str, Any] = {"color": INK, "alpha": 0.6, "lw": 1, "ls": (0, (5, 4))}
STYLE: dict[Any, object] = {
    "font.size": SMALLEST,
    "text.color": INK,
    "text.parse_math": False,  # a tensor's name may hold a dollar sign
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.titlesize": SMALLEST,
    "legend.frameon": False,
    "legend.fontsize": SMALLEST,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
}


def panels(n: int, n_left_out: int) -> tuple[Figure, list[Axes]]:
    """A grid of `n` axes, up to three one above the other, else in two columns."""
    n_columns = 1 if n <= 3 else 2
    n_rows = math.ceil(n / n_columns)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).flat
    for ax in grid[n:]:
        ax.remove()
    for ax in grid[:n]:
        dress(ax)
    if n_left_out:
        left_out = f"The {n} largest tensors; {n_left_out} smaller ones are left out."
        figure.suptitle(left_out, fontsize=SMALLEST, x=0.01, ha="left")
    return figure, list(grid[:n])


def dress(ax: Axes) -> None:
    """Ink and a faint grid."""
    # Ticks are made when drawn, after this module's style has gone, so their colour is set here.
    ax.tick_params(which="both", colors=INK, labelsize=SMALLEST)
    ax.grid(color=INK, alpha=0.12, lw=0.6)
    ax.set_axisbelow(True)


def key(figure: Figure, colours: Mapping[str, str]) -> None:
    """Say what each colour is, below the figure."""
    patches = [Patch(color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=patches, loc="outside lower left", ncols=min(len(patches), 3), columnspacing=1.2)


def log_ticks(axis: Axis, subs: Sequence[int] = (1, 2, 5)) -> None:
    """Ticks of a logarithmic axis: multiples of powers of ten, with SI prefixes."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_locator(NullLocator())


def points(ax: Axes, xs: Sequence[float], ys: Sequence[float], labels: Sequence[str], **look: Any) -> None:
    """Points that have labels as their addresses within the figure; a page makes hints of them."""
    ax.scatter(xs, ys, s=30, lw=0, zorder=4, urls=[f"#{label}" for label in labels], **look)


def need(values: Sequence[object], message: str) -> None:
    """Raise `ValueError(message)` unless there are values."""
    if not values:
        raise ValueError(message)
