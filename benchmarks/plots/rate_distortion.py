"""The figure of `codec`: bits a weight against the error, Laconic beside NNCodec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from benchmarks.plots.style import BLUE, GREY, panels

LABELS = {"nncodec_bytes": ("NNCodec, dependent quantisation", GREY, "s"), "laconic_bytes": ("Laconic", BLUE, "o")}


def figure(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """One panel a network."""
    drawn, axes = panels(len(curves), 2.6)
    for ax, (network, points) in zip(axes, curves.items(), strict=True):
        errors = [point["relative_squared_error"] for point in points]
        for key, (label, colour, marker) in LABELS.items():
            rates = [8 * point[key] / point["weights"] for point in points]
            ax.plot(errors, rates, color=colour, marker=marker, ms=4, lw=1.3, label=label)
        ax.set_xscale("log")
        ax.set_title(network)
        ax.set_ylabel("bits a weight, whole file")
        ax.legend(loc="upper right")
    axes[-1].set_xlabel("squared error, relative to the weights' own squares (log scale)")
    return drawn
