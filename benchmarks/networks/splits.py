"""Parts of data."""

from __future__ import annotations

from torch import Tensor

from laconic.datasets import Split


def part(data: Split, chosen: slice | Tensor) -> Split:
    """The examples at some places, or where a mask is true."""
    return Split(data.inputs[chosen], data.targets[chosen])
