"""What the documentation's figures share: one style, one palette, axes dressed in them, and their folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

DOCS = Path(__file__).parents[2] / "docs"
INK = "#1b1b1f"  # of text and axes: a page replaces it by its own
BLUE, VERMILION, GREY = "#1f83c4", "#d55e00", "#8c8c94"
WIDTH = 4.8
STYLE: dict[Any, object] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "laconic",
}


def save_figure(name: str, figure: Callable[..., Figure], *of: Any) -> None:
    """Write `figure(*of)` for the documentation; the same figure is the same file."""
    with rc_context(STYLE):
        figure(*of).savefig(DOCS / f"{name}.svg", metadata={"Date": None})


def panels(n: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure of `n` axes, one above the other."""
    figure = Figure(figsize=(width, height * n), layout="constrained")
    return figure, list(figure.subplots(n, squeeze=False).flat)


def key(figure: Figure, colours: Mapping[str, str]) -> None:
    """Say what each colour is, above the figure."""
    patches = [Patch(color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=patches, loc="outside upper left", ncols=len(patches))
