"""What a model's graph holds together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Where a group's members lie in one tensor.

    Attributes:
        tensor: its name in the state_dict.
        axis: the axis that is cut.
        index: int64 (members, width): each member's positions along the axis.
    """

    tensor: str
    axis: int
    index: Tensor


@dataclass(frozen=True)
class Group:
    """What lives and dies together: member i is row i of every part's index."""

    name: str
    parts: tuple[Part, ...]
    settings: tuple[tuple[str, str, int], ...] = ()
    bypassed: str = ""


@dataclass(frozen=True)
class Coupling:
    """Groups that can be cut, and why others cannot."""

    groups: tuple[Group, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
