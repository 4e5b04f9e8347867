"""Contests: members that compete with each other at what is lost with them per unit of what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Bool, Shaped

from laconic.errors import MismatchError
from laconic.pruning.topk import largest, largest_of_rows

Table: TypeAlias = Shaped[torch.Tensor, "_ _"]  # (contests, members)
Kept: TypeAlias = list[Bool[torch.Tensor, "_ _"]]  # a table of booleans for each name


@dataclass(frozen=True)
class Contest:
    """Members that compete with each other; several such contests of equal size if a table has several rows.

    Attributes:
        tables: what is lost with each member per unit of its cost, (contests, members) for each name. Several
            tables of one row each form a single contest.
        even: whether every member costs the same.
        cost_of: cost of a choice, given the members that stay.
        shapes: of the tensors by name, where each member lies in one tensor.
    """

    tables: Mapping[str, Table]
    even: bool
    cost_of: Callable[[Kept], float]
    shapes: Mapping[str, torch.Size]

    @property
    def n(self) -> int:
        """How many members compete with each other."""
        return sum(table.shape[1] for table in self.tables.values())

    @property
    def n_rows(self) -> int:
        """How many contests of equal size there are."""
        return len(next(iter(self.tables.values())))

    @cached_property
    def cost(self) -> float:
        """Cost of all members."""
        return self.cost_of([torch.ones_like(table, dtype=torch.bool) for table in self.tables.values()])

    def top(self, k: int) -> Kept:
        """The `k` members with the most to lose; ties go to the lower index.

        Raises:
            MismatchError: there are fewer than `k`.
        """
        tables = list(self.tables.values())
        if not 0 <= k <= self.n:
            raise MismatchError(f"{next(iter(self.tables))}: expected {k} or more to compete, found {self.n}")
        if len(tables) == 1 and len(tables[0]) != 1:
            return [largest_of_rows(tables[0], k)]
        return [kept[None] for kept in largest([table[0] for table in tables], k)]

    def within(self, limit: float) -> Kept:
        """As many as cost no more than `limit`, those with the most to lose; at least the infinite ones."""
        limit *= 1 + 1e-9  # costs are sums of floats: a limit that is met exactly is met
        if self.even:
            return self.top(min(self.n, int(limit * self.n / self.cost)) if self.cost else self.n)
        must_stay = sum(int(table.isposinf().sum()) for table in self.tables.values())
        return self.top(max(must_stay, last(lambda k: self.cost_of(self.top(k)) <= limit, self.n)))


def last(holds: Callable[[int], bool], n: int) -> int:
    """Largest k ≤ n with `holds(k)`. Requires `holds` to be monotone; 0 if it never holds."""
    yes, no = 0, n + 1
    while no - yes > 1:
        middle = (yes + no) // 2
        yes, no = (middle, no) if holds(middle) else (yes, middle)
    return yes
