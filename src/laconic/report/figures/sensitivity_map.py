"""The map of a sensitivity scan: which tensors bear how much pruning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import takewhile

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from laconic.pruning.sensitivity import Scan
from laconic.report.figures.style import INK, STYLE, WIDTH, need, shortened

# Cells keep their colours on any page, and so their figures keep these: not `INK`, which follows the page.
HARMLESS, HARMFUL = "#e9eff4", "#a33c00"
ON_LIGHT, ON_DARK = "#202024", "#fdfdfd"
MAX_ROWS, MAX_TEXTS, MAX_NAME = 64, 16, 44
UNITS = {0: "", 3: " (thousands)", 6: " (millions)", 9: " (billions)"}


@rc_context(STYLE)
def sensitivity(scan: Scan, lower_is_better: bool = False) -> Figure:
    """A row for each tensor, a column for each amount: what the network is worth with that tensor pruned.

    The darker a cell, the worse than the dense network. Values within [0, 1], such as accuracies, are written
    in percent. Of very many tensors, the most sensitive are drawn.

    Args:
        scan: from `laconic.pruning.scan`.
        lower_is_better: values are losses, such as bits.

    Raises:
        ValueError: the scan has no tensor.
    """
    need(scan.names, "scan: expected at least one tensor, found none")
    losses = np.array(scan.losses(lower_is_better))
    shown = sorted(np.argsort(-np.nan_to_num(losses, nan=np.inf).sum(1), kind="stable")[:MAX_ROWS])
    n_rows, n_columns = len(shown), len(scan.amounts)
    names, prefix = _names([scan.names[i] for i in shown])
    narrow = n_columns <= 7 and max(map(len, names)) <= 30
    figure = Figure(figsize=(WIDTH if narrow else 6.6, 0.2 * n_rows + 1.1), layout="constrained")
    ax = figure.subplots()
    worst = float(np.nanmax(losses, initial=0)) or 1.0
    # A point lost of ninety is to be seen: the scale rises steeply at first.
    norm = PowerNorm(0.4, 0, worst, clip=True)
    colours = LinearSegmentedColormap.from_list("harm", [HARMLESS, HARMFUL])
    shades = norm(np.nan_to_num(losses[shown], nan=worst))
    ax.pcolormesh(shades, cmap=colours, vmin=0, vmax=1, edgecolors=HARMLESS, linewidth=0.4)
    values = np.array(scan.values)[shown]
    write, unit = _writer(values, scan.dense)
    if n_columns <= MAX_TEXTS:
        _write_values(ax, values, shades, write)
    _dress(ax, names, scan.amounts)
    sense = "Lower" if lower_is_better else "Higher"
    lines = [
        f"The network's value{unit} with one tensor pruned; {write(scan.dense)} with none.",
        f"{sense} is better; the darker, the worse.",
    ]
    if n_left_out := len(scan.names) - n_rows:
        lines.append(f"The {n_rows} most sensitive tensors; {n_left_out} others are left out.")
    if prefix:
        lines.append(f"All names begin with {prefix}")
    figure.suptitle("\n".join(lines), fontsize=8, x=0.01, ha="left")
    return figure


def _names(names: Sequence[str]) -> tuple[list[str], str]:
    """Names short enough to stand beside a row, and what was taken from the front of all."""
    prefix = ""
    if max(map(len, names)) > MAX_NAME:
        components = zip(*(name.split(".")[:-1] for name in names), strict=False)
        prefix = "".join(f"{same[0]}." for same in takewhile(lambda c: len(set(c)) == 1, components))
    return [shortened(name[len(prefix) :], MAX_NAME, head=MAX_NAME // 2) for name in names], prefix


def _dress(ax: Axes, names: Sequence[str], amounts: Sequence[float]) -> None:
    ax.set_ylim(len(names), 0)
    ax.set_yticks(np.arange(len(names)) + 0.5, names)
    ax.set_xticks(np.arange(len(amounts)) + 0.5, [f"{100 * amount:.4g}" for amount in amounts])
    ax.tick_params(colors=INK, labelsize=7, length=0)
    ax.set_xlabel("% of the tensor pruned", fontsize=8)
    ax.spines[:].set_visible(False)


def _write_values(
    ax: Axes, values: NDArray[np.float64], shades: NDArray[np.float64], write: Callable[[float], str]
) -> None:
    for (row, column), value in np.ndenumerate(values):
        colour = ON_DARK if shades[row, column] > 0.55 else ON_LIGHT
        place = (column + 0.5, row + 0.5)
        ax.text(*place, write(value), ha="center", va="center_baseline", fontsize=6.5, color=colour)


def _writer(values: NDArray[np.float64], dense: float) -> tuple[Callable[[float], str], str]:
    """How values are written, and their unit: percent, or a common power of a thousand."""
    everything = np.append(values, dense)
    largest = float(np.nanmax(np.abs(everything), initial=0))
    if largest <= 1 and float(np.nanmin(everything, initial=0)) >= 0:
        return lambda value: f"{100 * value:.1f}", " (%)"
    power = min(max(3 * math.floor(math.log10(largest) / 3), 0), 9) if largest > 0 else 0
    scaled = largest / 10**power
    n_decimals = 1 if scaled >= 100 else 2 if scaled >= 10 else 3
    return lambda value: f"{value / 10**power:,.{n_decimals}f}", UNITS[power]
