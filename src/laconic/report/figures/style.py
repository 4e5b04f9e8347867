"""What the figures share: one style, one palette, and axes dressed in them.

Text and axes are drawn in `INK`, which a page replaces by its own colour of text; the rest
follows Okabe & Ito (2008), whose colours colour-blind readers tell apart, with a lighter blue that
stands out on light and dark ground alike.
Figures are narrow, so that their text is still read on a phone, and made without pyplot, so nothing
is shared or left open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

INK = "#1b1b1f"
BLUE, VERMILION, GREY = "#1f83c4", "#d55e00", "#8c8c94"
WIDTH = 4.8
DASHED: dict[str, Any] = {"color": INK, "alpha": 0.6, "lw": 1, "ls": (0, (5, 4))}
STYLE: dict[Any, object] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a tensor's name may hold a dollar sign
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.titlesize": 7.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
}


def panels(n: int, n_left_out: int) -> tuple[Figure, list[Axes]]:
    """A grid of `n` axes, in two columns while few, three at most."""
    n_columns = 1 if n == 1 else 2 if n <= 6 else 3
    n_rows = math.ceil(n / n_columns)
    width = WIDTH if n_columns < 3 else 6.6
    figure = Figure(figsize=(width, 1.5 * n_rows + 0.6), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).flat
    for ax in grid[n:]:
        ax.remove()
    for ax in grid[:n]:
        dress(ax, 7)
    if n_left_out:
        left_out = f"The {n} largest tensors; the {n_left_out} smallest are left out."
        figure.suptitle(left_out, fontsize=8, x=0.01, ha="left")
    return figure, list(grid[:n])


def dress(ax: Axes, labelsize: float = 8) -> None:
    """Ink and a faint grid."""
    # Ticks are made when drawn, after this module's style has gone, so their colour is set here.
    ax.tick_params(which="both", colors=INK, labelsize=labelsize)
    ax.grid(color=INK, alpha=0.12, lw=0.6)
    ax.set_axisbelow(True)


def key(figure: Figure, colours: Mapping[str, str], above: bool = False) -> None:
    """Say what each colour is, below the figure or above it."""
    patches = [Patch(color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=patches, loc="outside upper left" if above else "outside lower left", ncols=len(patches))


def shortened(name: str, n_chars: int, head: int = 0) -> str:
    """The name, or its first `head` characters and as much of its end as there is room for."""
    return name if len(name) <= n_chars else name[:head] + "…" + name[head + 1 - n_chars :]


def need(values: Sequence[object], message: str) -> None:
    """Raise `ValueError(message)` unless there are values."""
    if not values:
        raise ValueError(message)
