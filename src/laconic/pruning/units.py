"""Units: what lives and dies together.

A unit turns scores of weights into scores of its members (`pool`) and decisions about
members into decisions about weights (`spread`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Unit(Protocol):
    """A pair of functions between weights and what lives and dies together."""

    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What is lost with each member, from what is lost with each weight."""
        ...

    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Which weights stay, in the shapes of `like`, from which members stay."""
        ...


@dataclass(frozen=True)
class Weight:
    """Every weight for itself: unstructured pruning."""

    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`lost` itself."""
        return lost

    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`kept` itself."""
        return kept
