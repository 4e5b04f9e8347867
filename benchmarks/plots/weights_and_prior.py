"""The figure of `hinton_van_camp`: a network's weights and the prior learnt with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.plots.style import BLUE, GREY, VERMILION, panels


def figure(networks: Mapping[str, Mapping[str, Any]]) -> Figure:
    """For each network its weights' histogram, the mixture's density and its components."""
    drawn, axes = panels(len(networks), 2.3)
    for ax, (name, network) in zip(axes, networks.items(), strict=True):
        weights = network["weights"]
        reach = 1.1 * max(map(abs, weights))
        at = np.linspace(-reach, reach, 2401)
        shape: dict[str, Any] = {"bins": 101, "range": (-reach, reach), "density": True}
        ax.hist(weights, **shape, histtype="stepfilled", color=GREY, alpha=0.5, label="weights")
        parts = [
            share * np.exp(-0.5 * ((at - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
            for mean, deviation, share in zip(*network["prior"], strict=True)
        ]
        for part in parts:
            ax.plot(at, part, color=VERMILION, lw=0.8, ls=":")
        ax.plot(at, sum(parts), color=BLUE, lw=1.3, label="prior")
        ax.set_yscale("log")
        ax.set_ylim(1e-3, 1e3)
        ax.set_title(name)
        ax.set_ylabel("density (log scale)")
    axes[0].legend(loc="upper right")
    axes[-1].set_xlabel("mean of a weight")
    return drawn
