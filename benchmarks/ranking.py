"""How well one figure ranks what another says: rank correlations, and what picking by the one loses.

Both correlations, ties included, are cosines of signs of differences sᵢⱼ = sign(xᵢ − xⱼ): Kendall's tau-b
of all pairs, Spearman's rho of the rows' sums, which are ranks but for a factor and a shift. They stand here
because scipy is no requirement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def tau(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b; 0 where all of x or all of y are equal."""
    return _cosine(_signs(x), _signs(y))


def rho(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rho, ties at their mean rank; 0 where all of x or all of y are equal."""
    return _cosine(_signs(x).sum(1), _signs(y).sum(1))


def regret(measure: ArrayLike, errors: ArrayLike) -> float:
    """The error at the lowest measure, the mean of those that share it, above the least error."""
    low, found = np.asarray(measure), np.asarray(errors)
    return float(found[low == low.min()].mean() - found.min())


def _signs(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    return np.sign(x[:, None] - x)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / lengths if lengths else 0.0
