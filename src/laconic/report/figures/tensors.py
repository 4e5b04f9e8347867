"""Figures of a network's tensors: how its weights lie, which were kept, and how much pruning each tensor bears."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray

from laconic.core.text import elided
from laconic.pruning.sensitivity import Scan
from laconic.report.figures.style import BLUE, GREY, INK, SMALLEST, STYLE, WIDTH, key, need, panels

_PRUNED, _KEPT = "#dfe6ec", "#12365b"
_LINE = {1: 56, 2: 26}  # characters, by columns of panels
_MAX_PANELS = 4
_MAX_SIDE = 512
_N_BINS = 60


@rc_context(STYLE)
def weight_histograms(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> Figure:
    """Histograms of the active (non-zero) weights of each tensor in `after`, over those `before`.

    Raises:
        ValueError: if `after` is empty, `before` lacks a tensor or a weight is not finite.
    """
    names, n_left_out = _largest(after)
    need(names, "after: expected at least one tensor with entries, found none")
    if missing := [name for name in names if name not in before]:
        raise ValueError(f"before: expected every tensor of after, lacks {', '.join(missing)}")
    figure, grid = panels(len(names), n_left_out)
    for ax, name in zip(grid, names, strict=True):
        old, new = _active(name, before[name]), _active(name, after[name])
        ax.set_title(_title(name, f"{new.size:,} of {after[name].numel():,} active", len(names)), loc="left")
        _histograms(ax, old, new)
    grid[-1].set_xlabel("weight", fontsize=SMALLEST)
    figure.supylabel("weights per bin (log scale)", fontsize=SMALLEST, rotation_mode="anchor", ha="center", va="top")
    key(figure, {"active before": GREY, "active after": BLUE})
    return figure


@rc_context(STYLE)
def mask_maps(masks: Mapping[str, torch.Tensor]) -> Figure:
    """One map for each mask, out by in: kept weights dark, pruned ones light.

    Masks of more than 512 rows or columns are averaged in blocks, so their greys are kept shares.
    """
    names, n_left_out = _largest(masks)
    need(names, "masks: expected at least one mask with entries, found none")
    figure, grid = panels(len(names), n_left_out)
    colours = LinearSegmentedColormap.from_list("kept", [_PRUNED, _KEPT])
    for ax, name in zip(grid, names, strict=True):
        mask = masks[name].detach().cpu() != 0
        rows = mask.reshape(mask.shape[0] if mask.ndim > 1 else 1, -1).numpy()
        image = block_means(rows)
        ax.imshow(image, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="none")
        ax.set_title(_title(name, f"{100 * rows.mean():.1f} % kept", len(names)), loc="left")
        ax.set_xlabel(f"{rows.shape[1]:,} {'in' if mask.ndim > 1 else 'entries'}", fontsize=SMALLEST)
        if mask.ndim > 1:
            ax.set_ylabel(f"{rows.shape[0]:,} out", fontsize=SMALLEST, rotation_mode="anchor")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    key(figure, {"kept": _KEPT, "pruned": _PRUNED})
    return figure


def block_means(mask: NDArray[np.bool_], max_side: int = _MAX_SIDE) -> NDArray[np.float64]:
    """The mask's means over equal blocks (the last ones may be smaller), `max_side` at most."""
    steps = [math.ceil(length / max_side) for length in mask.shape]
    starts = [np.arange(0, n, step) for n, step in zip(mask.shape, steps, strict=True)]
    sums = np.add.reduceat(mask, starts[0], axis=0, dtype=np.int64)
    sums = np.add.reduceat(sums, starts[1], axis=1)
    heights, widths = (np.diff(s, append=n) for s, n in zip(starts, mask.shape, strict=True))
    return sums / np.outer(heights, widths)


def _histograms(ax: Axes, old: NDArray[np.float32], new: NDArray[np.float32]) -> None:
    present = [weights for weights in (old, new) if weights.size]
    if not present:
        ax.text(0.5, 0.5, "no active weights", ha="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    ends = [w.min() for w in present] + [w.max() for w in present]
    edges = np.histogram_bin_edges(np.array(ends, np.float64), bins=_N_BINS)
    for weights, colour in ((old, GREY), (new, BLUE)):
        counts, _ = np.histogram(weights.astype(np.float64), edges)
        ax.stairs(counts, edges, fill=True, color=colour, alpha=0.9)
    # Few weights survive: on a linear axis the survivors would be too low to see.
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.7)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    ax.yaxis.set_minor_locator(NullLocator())


def _largest(tensors: Mapping[str, torch.Tensor]) -> tuple[list[str], int]:
    """Names of the largest tensors with entries, in the mapping's order, and how many it omits."""
    named = [name for name, tensor in tensors.items() if tensor.numel()]
    shown = set(sorted(named, key=lambda name: -tensors[name].numel())[:_MAX_PANELS])
    return [name for name in named if name in shown], len(named) - len(shown)


def _active(name: str, tensor: torch.Tensor) -> NDArray[np.float32]:
    flat = tensor.detach().cpu().float().flatten().numpy()
    if not np.isfinite(flat).all():
        raise ValueError(f"{name}: expected finite weights, found {np.sum(~np.isfinite(flat))} not")
    return flat[flat != 0]


def _title(name: str, count: str, n_panels: int) -> str:
    """The name and the count, on lines of their own where one would run into the next panel."""
    n_chars = _LINE[1 if n_panels <= 3 else 2]
    one_line = f"{name}: {count}"
    return one_line if len(one_line) <= n_chars else f"{elided(name, n_chars)}\n{count}"


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
    return [elided(name[len(prefix) :], MAX_NAME) for name in names], prefix


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
