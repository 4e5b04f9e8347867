"""Criteria: what is lost if a weight goes.

A criterion is a function from named weights to named scores of the same shapes; the lowest go
first. Evidence from data, where one needs it, is bound beforehand: `functools.partial(fisher, evidence)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

Criterion: TypeAlias = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def magnitude(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`|w|` (Han et al. 2015): it ranks weights, and is not in bits."""
    return {name: weight.detach().abs() for name, weight in weights.items()}
