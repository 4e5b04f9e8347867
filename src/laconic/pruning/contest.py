"""Contests: members that compete with each other at what is lost with them per unit of what they cost.

The k largest scores are found exactly and without sorting, by a radix selection. It reads the scores' bits as integers,
counts the leading 16 bits, then the next 16 of those at the boundary, and so knows the k-th score exactly. For float32
that is three passes in chunks, whatever n, with no copy of the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Bool, Shaped

from laconic.errors import MismatchError

Table: TypeAlias = Shaped[torch.Tensor, "_ _"]  # (contests, members)
Kept: TypeAlias = list[Bool[torch.Tensor, "_ _"]]  # a table of booleans for each name
CHUNK = 1 << 20  # elements looked at together: small enough for a cache
DIGIT_BITS = 16
N_DIGITS = 1 << DIGIT_BITS


@dataclass(frozen=True)
class Contest:
    """Members that compete with each other; several such contests of equal size if a table has several rows.

    Attributes:
        tables: what is lost with each member per unit of its cost, (contests, members) for each name. Several tables of
            one row each form a single contest.
        even: whether every member costs the same.
        cost_of: cost of a choice, given the members that stay.
        shapes: the tensors' shapes by name, where each member lies in one tensor.
    """

    tables: Mapping[str, Table]
    even: bool
    cost_of: Callable[[Kept], float]
    shapes: Mapping[str, torch.Size]

    @property
    def n(self) -> int:
        """Number of members that compete with each other."""
        return sum(table.shape[1] for table in self.tables.values())

    @property
    def n_rows(self) -> int:
        """Number of contests of equal size."""
        return len(next(iter(self.tables.values())))

    @cached_property
    def cost(self) -> float:
        """Cost of all members."""
        return self.cost_of([torch.ones_like(table, dtype=torch.bool) for table in self.tables.values()])

    def within(self, limit: float) -> Kept:
        """The members with the most to lose, as many as cost no more than `limit`; at least the infinite ones."""
        limit *= 1 + 1e-9  # costs are sums of floats: a limit that is met exactly is met
        if self.even:
            return largest(self.tables, min(self.n, int(limit * self.n / self.cost)) if self.cost else self.n)
        must_stay = sum(int(table.isposinf().sum()) for table in self.tables.values())
        n_kept = last(lambda k: self.cost_of(largest(self.tables, k)) <= limit, self.n)
        return largest(self.tables, max(must_stay, n_kept))


def last(holds: Callable[[int], bool], n: int) -> int:
    """Largest k ≤ n with `holds(k)`. Requires `holds` to be monotone; 0 if it never holds."""
    yes, no = 0, n + 1
    while no - yes > 1:
        middle = (yes + no) // 2
        yes, no = (middle, no) if holds(middle) else (yes, middle)
    return yes


def largest(tables: Mapping[str, Table], k: int) -> Kept:
    """The `k` largest of each row, or of all tables of one row together; ties go to the lower index.

    Raises:
        MismatchError: there are fewer.
    """
    scores = list(tables.values())
    n = sum(score.shape[1] for score in scores)
    if not 0 <= k <= n:
        raise MismatchError(f"{next(iter(tables))}: expected {k} or more to compete, found {n}")
    if k in (0, n):
        return [torch.full_like(score, k == n and n > 0, dtype=torch.bool) for score in scores]
    if len(scores[0]) != 1:
        order = scores[0].sort(dim=1, descending=True, stable=True).indices[:, :k]
        return [torch.zeros_like(scores[0], dtype=torch.bool).scatter_(1, order, True)]
    threshold, n_ties = _kth_largest([chunk for score in scores for chunk in score[0].split(CHUNK)], k)
    kept = [score > threshold for score in scores]
    for score, stays in zip(scores, kept, strict=True):
        for chunk, out in zip(score[0].split(CHUNK), stays[0].split(CHUNK), strict=True):
            if n_ties and (equal := chunk == threshold).any():
                first = equal.nonzero().squeeze(1)[:n_ties]
                out[first] = True
                n_ties -= len(first)
    return kept


def _kth_largest(chunks: Sequence[torch.Tensor], k: int) -> tuple[float, int]:
    """The k-th largest value, and how many of its equals belong to the k largest."""
    wide = any(chunk.dtype == torch.float64 for chunk in chunks)
    n_bits, integer, real = (64, torch.int64, torch.float64) if wide else (32, torch.int32, torch.float32)
    magnitude = (1 << (n_bits - 1)) - 1

    def ordered(values: torch.Tensor) -> torch.Tensor:
        """Signed integers in the order of the floats; −0 is 0."""
        floats = values.to(real)
        if not floats.numel() or floats.min() >= 0:  # most criteria are not negative: one operation instead of five
            return floats.view(integer) & magnitude
        bits = (floats + 0.0).view(integer)
        return bits ^ ((bits >> (n_bits - 1)) & magnitude)

    first = n_bits - DIGIT_BITS
    key = -(N_DIGITS >> 1)  # the leading digits of the result so far, then zeros; the first digit is signed
    for shift in range(first, -1, -DIGIT_BITS):
        counts = torch.zeros(N_DIGITS, dtype=torch.int64)
        for chunk in chunks:
            digit = (ordered(chunk) >> shift) - key
            digit = digit if shift == first else digit[(digit >= 0) & (digit < N_DIGITS)]
            counts += torch.bincount(digit, minlength=N_DIGITS).cpu()
        from_top = counts.flip(0).cumsum(0)
        place = int(torch.searchsorted(from_top, k))
        k -= int(from_top[place - 1]) if place else 0
        key = (key + N_DIGITS - 1 - place) << (DIGIT_BITS if shift else 0)
    return float(torch.tensor(key ^ ((key >> (n_bits - 1)) & magnitude), dtype=integer).view(real)), k
