"""The figure of benchmarks/prediction.py: test errors against total bits, and against held-out errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from laconic.report.drawing import BLUE, GREY, STYLE, VERMILION, WIDTH, dress

COLOURS = {"linear": GREY, "perceptron": BLUE, "convolutional": VERMILION}
LEAST = 5e-4  # logarithms have no zero: half an image in a thousand


@rc_context(STYLE)
def figure(rows: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> Figure:
    """A row of panels a data set; a point a network and seed, coloured by its family."""
    drawn = Figure(figsize=(WIDTH, 2.3 * len(rows)), layout="constrained")
    axes = drawn.subplots(len(rows), 2, squeeze=False, sharey="row")
    for (data, networks), (left, right) in zip(rows.items(), axes, strict=True):
        held_out = [key for key in next(iter(networks.values()))[0] if key.startswith("error_on")][-1]
        n = held_out.rpartition("_")[2]
        for ax, key, label in (
            (left, "total_bits", "total bits"),
            (right, held_out, f"error on {n} held-out images, %"),
        ):
            dress(ax)
            for family, colour in COLOURS.items():
                points = [r for name, of in networks.items() if name.startswith(family) for r in of]
                percent = 1 if key == "total_bits" else 100
                x = [percent * max(point[key], LEAST) for point in points]
                y = [100 * point["test_error"] for point in points]
                ax.plot(x, y, color=colour, marker="o", ms=3, alpha=0.7, ls="none", label=family)
            ax.set(xscale="log", yscale="log", xlabel=label)
        left.set_ylabel("test error, %")
        left.set_title(data, loc="left", fontsize=9)
    axes[0, 1].legend(loc="upper left", handletextpad=0)
    return drawn
