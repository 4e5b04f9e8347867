"""Contests: who competes with whom (scopes), and who wins (budgets).

Members compete at what they lose per unit of what they cost. A scope lays a tensor's members out as a table,
one row a contest, or says that all tensors make one contest; a budget marks the winners of all contests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Shaped

from laconic.errors import MismatchError, NonFiniteError
from laconic.pruning.ranking import largest, largest_of_rows

Table: TypeAlias = Shaped[torch.Tensor, "_ _"]  # (contests, members)
Kept: TypeAlias = list[Bool[torch.Tensor, "_ _"]]  # a table of booleans for each name


@dataclass(frozen=True)
class Contest:
    """Members that compete with each other; several such contests of equal size if a table has several rows.

    Attributes:
        tables: what is lost with each member per unit of its cost, (contests, members) for each name; of
            several tables the only rows compete together.
        even: every member costs the same.
        cost_of: what a choice costs, given the members that stay.
        shapes: of the tensors by name, where members lie in one.
    """

    tables: Mapping[str, Table]
    even: bool
    cost_of: Callable[[Kept], float]
    shapes: Mapping[str, torch.Size]

    @property
    def n(self) -> int:
        """How many members compete with each other."""
        return sum(table.shape[1] for table in self.tables.values())

    @cached_property
    def cost(self) -> float:
        """What all members cost."""
        return self.cost_of([torch.ones_like(table, dtype=torch.bool) for table in self.tables.values()])

    def top(self, k: int) -> Kept:
        """The `k` members with the most to lose; of equals, those of lower index.

        Raises:
            MismatchError: there are fewer.
        """
        tables = list(self.tables.values())
        if not 0 <= k <= self.n:
            raise MismatchError(f"{next(iter(self.tables))}: expected {k} or more to compete, found {self.n}")
        if len(tables) == 1 and len(tables[0]) != 1:
            return [largest_of_rows(tables[0], k)]
        return [kept[None] for kept in largest([table[0] for table in tables], k)]

    def thinned(self, density: float) -> Kept:
        """That fraction of the cost stays; of members that cost the same, `n − round((1 − density)·n)`."""
        return (
            self.top(self.n - round((1 - density) * self.n))
            if self.even
            else self.within(density * self.cost)
        )

    def within(self, limit: float) -> Kept:
        """As many as cost no more than `limit`, those with the most to lose; at least the infinite."""
        limit *= 1 + 1e-9  # costs are sums of floats: a limit that is met exactly is met
        if self.even:
            return self.top(min(self.n, int(limit * self.n / self.cost)) if self.cost else self.n)
        must_stay = sum(int(table.isposinf().sum()) for table in self.tables.values())
        return self.top(max(must_stay, last(lambda k: self.cost_of(self.top(k)) <= limit, self.n)))


def last(holds: Callable[[int], bool], n: int) -> int:
    """The last k from 0 to n for which `holds`, which then holds for all before it; 0 if it never does."""
    yes, no = 0, n + 1
    while no - yes > 1:
        middle = (yes + no) // 2
        yes, no = (middle, no) if holds(middle) else (yes, middle)
    return yes


@runtime_checkable
class Budget(Protocol):
    """Who wins.

    Attributes:
        each: what a weight costs: the same for all, or by tensor (nothing for those not named).
    """

    @property
    def each(self) -> float | Mapping[str, float]:
        """What a weight costs."""
        ...

    def keep(self, contests: Sequence[Contest]) -> Sequence[Kept]:
        """The members that stay, of each contest."""
        ...


@runtime_checkable
class Scope(Protocol):
    """Who competes.

    Attributes:
        together: all tensors make one contest.
    """

    @property
    def together(self) -> bool:
        """All tensors make one contest."""
        ...

    @property
    def length(self) -> int:
        """How many consecutive inputs must be looked at together, at least."""
        ...

    def table(self, lost: torch.Tensor, name: str) -> Table:
        """A tensor's members, a contest in each row."""
        ...

    def restore(self, table: Table, shape: torch.Size) -> torch.Tensor:
        """The members of a table in the tensor's shape."""
        ...


@dataclass(frozen=True)
class _Flat:
    """A scope in which the order of a tensor's members is that of the tensor."""

    length: int = field(default=1, init=False, repr=False)

    def restore(self, table: Table, shape: torch.Size) -> torch.Tensor:
        """Reshaped."""
        return table.reshape(shape)


@dataclass(frozen=True)
class Model(_Flat):
    """All members of all tensors compete together: global pruning."""

    together: bool = field(default=True, init=False, repr=False)

    def table(self, lost: torch.Tensor, name: str) -> Table:
        """One row."""
        return lost.reshape(1, -1)


@dataclass(frozen=True)
class Tensor(_Flat):
    """Members compete within their tensor: layer-wise pruning."""

    together: bool = field(default=False, init=False, repr=False)

    def table(self, lost: torch.Tensor, name: str) -> Table:
        """One row."""
        return lost.reshape(1, -1)


@dataclass(frozen=True)
class Row(_Flat):
    """Members compete within their output: a row of a matrix, a filter of a convolution."""

    together: bool = field(default=False, init=False, repr=False)

    def table(self, lost: torch.Tensor, name: str) -> Table:
        """The outputs' rows."""
        return lost.reshape(1, -1) if lost.ndim < 2 else lost.reshape(len(lost), lost[:1].numel())


@dataclass(frozen=True)
class Run:
    """Members compete in runs of `length` consecutive inputs (axis 1): N:M sparsity, with `Count(n)`.

    A convolution's runs lie along its input channels, at the same place of the kernel.
    """

    length: int
    together: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"run: expected a length of at least 1, got {self.length}")

    def table(self, lost: torch.Tensor, name: str) -> Table:
        """One run a row.

        Raises:
            MismatchError: the inputs cannot be divided into runs.
        """
        if lost.ndim < 2 or lost.shape[1] % self.length:
            n = lost.shape[1] if lost.ndim > 1 else "no"
            raise MismatchError(
                f"{name}: expected inputs in runs of {self.length}, found {n}; exclude this tensor"
            )
        return lost.movedim(1, -1).reshape(-1, self.length)

    def restore(self, table: Table, shape: torch.Size) -> torch.Tensor:
        """Runs back along axis 1."""
        last = torch.Size([shape[0], *shape[2:], shape[1]])
        return table.reshape(last).movedim(-1, 1)


@runtime_checkable
class Costs(Protocol):
    """What members cost, seen from the weights that they hold."""

    def even(self, names: Sequence[str]) -> bool:
        """Whether all members under these names cost the same."""
        ...

    def of(self, kept: Mapping[str, torch.Tensor]) -> float:
        """What the weights cost that stay, of those that the members named hold."""
        ...

    def shapes(self, names: Sequence[str]) -> Mapping[str, torch.Size]:
        """Of the tensors that members lie in, where they lie in one."""
        ...


def winners(
    scope: Scope, budget: Budget, lost: Mapping[str, torch.Tensor], costs: Costs
) -> dict[str, torch.Tensor]:
    """Booleans of the shapes of `lost`: those that the budget lets stay, in each contest the highest.

    Of equal scores the one with the lower index stays, and of tensors the earlier one, so reruns agree.

    Args:
        scope: who competes.
        budget: who wins.
        lost: with each member, per unit of its cost.
        costs: what members cost.

    Raises:
        NonFiniteError: a score is NaN.
        MismatchError: scope or budget do not fit the members.
    """
    for name, score in lost.items():
        if score.numel() and score.max().isnan():  # the maximum propagates NaN
            raise NonFiniteError(f"{name}: expected scores to rank, found NaN")
    tables = {name: scope.table(score.detach(), name) for name, score in lost.items()}
    groups = [list(lost)] if scope.together else [[name] for name in lost]

    def restored(names: Sequence[str], kept: Kept) -> dict[str, torch.Tensor]:
        return {n: scope.restore(k, lost[n].shape) for n, k in zip(names, kept, strict=True)}

    contests = [
        Contest(
            {name: tables[name] for name in names},
            costs.even(names),
            lambda kept, names=names: costs.of(restored(names, kept)),
            costs.shapes(names),
        )
        for names in groups
    ]
    choices = zip(groups, budget.keep(contests), strict=True)
    return {name: kept for names, choice in choices for name, kept in restored(names, choice).items()}
