"""Straight lines through points that chance has moved: logarithms of losses over bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def log_over_bytes(points: Sequence[Mapping[str, float]], of: str) -> tuple[float, float]:
    """Slope and intercept of the logarithm of the figure `of`, over bytes."""
    slope, intercept = np.polyfit([point["bytes"] for point in points], [math.log(point[of]) for point in points], 1)
    return float(slope), float(intercept)
