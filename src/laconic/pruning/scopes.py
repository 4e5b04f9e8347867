"""Scopes: who competes with whom.

A scope lays the members of each tensor out as a table, one contest a row, or says that all tensors form one contest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from typing_extensions import override

from laconic.errors import MismatchError
from laconic.pruning.contest import Table


class Scope(ABC):
    """Who competes with whom.

    Attributes:
        together: whether all tensors form one contest.
        length: least number of consecutive inputs that must be looked at together.
    """

    together: ClassVar[bool] = False
    length: int = 1

    @abstractmethod
    def table(self, lost: torch.Tensor, name: str) -> Table:
        """The members of a tensor, a contest in each row; MismatchError if it cannot be divided so."""

    def restore(self, table: Table, shape: torch.Size) -> torch.Tensor:
        """The inverse of `table`, in the tensor's shape."""
        return table.reshape(shape)


@dataclass(frozen=True)
class PerTensor(Scope):
    """Members compete within their tensor: layer-wise pruning."""

    @override
    def table(self, lost: torch.Tensor, name: str) -> Table:
        return lost.reshape(1, -1)


@dataclass(frozen=True)
class Global(Scope):
    """All members of all tensors compete together: global pruning.

    Attributes:
        may_empty: whether a tensor may lose all its weights to others whose scores are higher; else that is refused.
    """

    together: ClassVar[bool] = True
    may_empty: bool = True

    @override
    def table(self, lost: torch.Tensor, name: str) -> Table:
        return lost.reshape(1, -1)


@dataclass(frozen=True)
class PerRow(Scope):
    """Members compete within their output: a row of a matrix, a filter of a convolution."""

    @override
    def table(self, lost: torch.Tensor, name: str) -> Table:
        return lost.reshape(1, -1) if lost.ndim < 2 else lost.reshape(len(lost), lost[:1].numel())


@dataclass(frozen=True)
class NM(Scope):
    """Members compete within `length` ≥ 1 consecutive inputs (axis 1): N:M sparsity, with the budget `Count(n)`.

    In a convolution, these are input channels at the same place of the kernel.
    """

    length: int = field()  # required: without field() the base's value would be the default

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length: expected at least 1, found {self.length}")

    @override
    def table(self, lost: torch.Tensor, name: str) -> Table:
        if lost.ndim < 2 or lost.shape[1] % self.length:
            n = lost.shape[1] if lost.ndim > 1 else "no"
            raise MismatchError(f"{name}: expected inputs in runs of {self.length}, found {n}; exclude this tensor")
        return lost.movedim(1, -1).reshape(-1, self.length)

    @override
    def restore(self, table: Table, shape: torch.Size) -> torch.Tensor:
        return table.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
