"""The figure of `prediction`: total bits, and test errors of the networks and of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from benchmarks.plots.style import BLUE, GREY, VERMILION, WIDTH, key

COLOURS = {"linear": GREY, "perceptron": BLUE, "convolutional": VERMILION}
ERRORS = {"test_error": "networks as trained", "file_test_error": "decoded files"}


def figure(rows: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> Figure:
    """A row of panels a data set; a point a network and seed, coloured by its family."""
    drawn = Figure(figsize=(WIDTH, 2.4 * len(rows) + 0.3), layout="constrained")
    grid = drawn.subplots(len(rows), len(ERRORS), squeeze=False, sharex="row", sharey="row")
    for (data, networks), axes in zip(rows.items(), grid, strict=True):
        for ax, (error, of) in zip(axes, ERRORS.items(), strict=True):
            for family, colour in COLOURS.items():
                found = [r for name, runs in networks.items() if name.startswith(family) for r in runs]
                x, y = [r["total_bits"] for r in found], [100 * r[error] for r in found]
                ax.plot(x, y, color=colour, marker="o", ms=3, alpha=0.7, ls="none")
            ax.set(xscale="log", yscale="log", xlabel="total bits")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_minor_locator(NullLocator())
                axis.set_major_formatter(EngFormatter(sep=""))
            ax.set_title(f"{data}, {of}")
        axes[0].set_ylabel("test error, % (log scale)")
    key(drawn, COLOURS)
    return drawn
