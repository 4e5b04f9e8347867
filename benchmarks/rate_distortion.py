"""The figure of benchmarks/codec.py: bits a weight against the error, Laconic beside NNCodec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from laconic.report.figures.style import BLUE, GREY, STYLE, WIDTH, dress

LABELS = {
    "nncodec_bytes": ("NNCodec, dependent quantisation", GREY, "s"),
    "laconic_bytes": ("Laconic", BLUE, "o"),
}


@rc_context(STYLE)
def figure(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """One panel a network."""
    drawn = Figure(figsize=(WIDTH, 2.6 * len(curves)), layout="constrained")
    for ax, (network, points) in zip(
        drawn.subplots(len(curves), squeeze=False).flat, curves.items(), strict=True
    ):
        dress(ax)
        errors = [point["relative_squared_error"] for point in points]
        for key, (label, colour, marker) in LABELS.items():
            rates = [8 * point[key] / point["weights"] for point in points]
            ax.plot(errors, rates, color=colour, marker=marker, ms=4, lw=1.3, label=label)
        ax.set_xscale("log")
        ax.set_title(network, loc="left", fontsize=9)
        ax.set_ylabel("bits a weight, whole file")
        ax.legend(loc="upper right")
    ax.set_xlabel("squared error, relative to the weights' own squares (log scale)")
    return drawn
