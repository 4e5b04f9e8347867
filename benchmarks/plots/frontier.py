"""The figure of `lenets`: bytes against test error on MNIST, beside what was published.

A hollow mark is a size that its authors computed by a formula or from a number of parameters; the others are
lengths of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from benchmarks.plots.style import BLUE, GREY, VERMILION, panels


@dataclass(frozen=True)
class Published:
    """A network of a paper's, by its first author and year, and on which side of its mark its label stands."""

    label: str
    kilobytes: float
    error: float
    is_file: bool = False
    side: str = "above"


PUBLISHED = {
    "lenet-300-100": (
        Published("Han 2015", 27, 0.0158, side="over"),
        Published("Ullrich 2017", 1066 / 64, 0.0194),
        Published("Molchanov 2017", 1066 / 68, 0.0192, side="below"),
        Published("Louizos 2017", 1066 / 113, 0.018, side="below"),
        Published("Evci 2020", 16.1, 0.0157, side="below"),
        Published("Oktay 2019", 8.56, 0.019, is_file=True),
    ),
    "lenet-5": (
        Published("Han 2015", 44, 0.0074, side="above"),
        Published("Ullrich 2017", 1724 / 162, 0.0097, side="right"),
        Published("Molchanov 2017", 1724 / 280, 0.0075, side="right"),
        Published("Louizos 2017", 1724 / 771, 0.01, side="over"),
        Published("Havasi 2018", 3.03, 0.0069, is_file=True, side="beside"),
        Published("Havasi 2018", 1.52, 0.0096, is_file=True, side="beside"),
        Published("Oktay 2019", 2.84, 0.01, is_file=True, side="right"),
    ),
}
SIDES = {
    "above": ((0, 5), "center"),
    "over": ((0, 8), "left"),
    "below": ((0, -13), "center"),
    "right": ((7, -3), "left"),
    "beside": ((9, -7), "left"),  # right of the dots that are near
}
NARROW = 3.75  # inches: on a phone, its text of nine points is more than eleven pixels high
NAMES = {"lenet-300-100": "LeNet-300-100", "lenet-5": "LeNet-5"}


def figure(records: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """One panel a network; `records` have bytes and test errors."""
    drawn, axes = panels(len(PUBLISHED), 2.7, NARROW)
    for ax, (network, published) in zip(axes, PUBLISHED.items(), strict=True):
        for one in published:
            at, fill = (one.kilobytes, 100 * one.error), GREY if one.is_file else "none"
            label = "published, a file" if one.is_file else "published, computed"
            ax.plot(*at, "s", color=GREY, mfc=fill, ms=4, ls="", label=label)
            offset, ha = SIDES[one.side]
            ax.annotate(one.label, at, offset, textcoords="offset points", ha=ha)
        for key, color, label in (
            (network, BLUE, "Laconic, one seed each"),
            (f"{network}-distilled", VERMILION, "Laconic, distilled"),
        ):
            x = [row["bytes"] / 1000 for row in records.get(key, ())]
            y = [100 * row["test_error"] for row in records.get(key, ())]
            ax.plot(x, y, "o", color=color, ms=4, ls="", label=label)
        ax.set_xscale("log")
        ax.set_xticks(ticks := [1, 2, 5, 10, 20, 50], [str(tick) for tick in ticks], minor=False)
        ax.minorticks_off()
        ax.set_xlim(0.9, 90)
        ax.margins(y=0.15)
        ax.set_title(NAMES[network])
        ax.tick_params(labelsize=9)
        ax.set_ylabel("test error, %")
    marks = dict(zip(*reversed(axes[-1].get_legend_handles_labels()), strict=True))
    drawn.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=2, fontsize=9)
    axes[-1].set_xlabel("kilobytes (log scale)")
    return drawn
