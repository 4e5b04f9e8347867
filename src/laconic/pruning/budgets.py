"""Budgets: who wins a contest.

Some say how much stays (`Density`, `Count`, `Total`), some share it out among layers (`Erk`, `Rates`). At a `Price` the
density is an output.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from laconic.errors import MismatchError
from laconic.model.selectors import matches
from laconic.pruning.contest import Contest, Kept, largest, last

BITS_OF_FLOAT32 = 32.0


class Budget(ABC):
    """Who wins.

    Attributes:
        each: cost of a weight: the same for all, or by tensor (nothing for those not named).
    """

    each: float | Mapping[str, float] = 1.0

    @abstractmethod
    def keep(self, contests: Sequence[Contest]) -> Sequence[Kept]:
        """The members that stay, of each contest."""


class Fraction(Budget):
    """A budget that states which fraction of the members, or of their cost, stays: a number in [0, 1]."""

    fraction: float

    def at(self, fraction: float) -> Fraction:
        """The same budget at another fraction."""
        return replace(self, fraction=fraction)  # pyright: ignore[reportArgumentType] – a dataclass

    def __post_init__(self) -> None:
        _check_fraction(self.fraction, type(self).__name__)


@dataclass(frozen=True)
class Density(Fraction):
    """The same fraction stays in every contest.

    Attributes:
        fraction: fraction of the competing weights' cost that stays, in [0, 1]. Where members cost the same, the number
            removed is rounded, half to even, as in `torch.nn.utils.prune`; otherwise it is rounded up.
        each: cost of a weight: 1 by default, so that weights are counted. `laconic.surgery.count_macs` makes it a
            fraction of the multiply–adds.
    """

    fraction: float = 1.0
    each: float | Mapping[str, float] = 1.0

    @override
    def keep(self, contests: Sequence[Contest]) -> Sequence[Kept]:
        return [
            largest(contest.tables, _n_kept(contest.n, self.fraction))
            if contest.even
            else contest.within(self.fraction * contest.cost)
            for contest in contests
        ]


@dataclass(frozen=True)
class Count(Budget):
    """The same number of members, not weights, stays in every contest: with ``NM(4)``, ``Count(2)`` is 2:4 sparsity."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"count: expected 0 or more, found {self.n}")

    @override
    def keep(self, contests: Sequence[Contest]) -> Sequence[Kept]:
        return [largest(contest.tables, self.n) for contest in contests]


@dataclass(frozen=True)
class Total(Budget):
    """All that stays costs no more than a limit; in each contest the same fraction of the cost stays.

    Attributes:
        limit: largest total cost, in the unit of `each`.
        each: cost of a weight, for all or by tensor: 1 to count weights, bits of a weight for a total of bits,
            `laconic.surgery.count_macs` for a total of multiply–adds.
    """

    limit: float
    each: float | Mapping[str, float] = 1.0

    def __post_init__(self) -> None:
        if not self.limit >= 0:
            raise ValueError(f"total: expected a limit of 0 or more, found {self.limit}")

    @override
    def keep(self, contests: Sequence[Contest]) -> Sequence[Kept]:
        if len(contests) == 1:
            return [contests[0].within(self.limit)]
        steps = max(contest.n for contest in contests)

        def kept(step: int) -> list[Kept]:
            return [contest.within(step / steps * contest.cost) for contest in contests]

        def cost(step: int) -> float:
            return sum(contest.cost_of(k) for contest, k in zip(contests, kept(step), strict=True))

        return kept(last(lambda step: cost(step) <= self.limit * (1 + 1e-9), steps))


@dataclass(frozen=True)
class Price(Budget):
    """A member goes when it saves more than `bits_saved` bits for each bit that the data lose.

    Requires a criterion in bits. A price of 1 gives the two-part minimum description length of the observed examples.
    For N examples of which n were observed, the price is N/n.

    Attributes:
        bits_saved: the price λ: bits of file that a bit of the data is worth.
        each: bits saved with each weight, for all or by tensor.
    """

    bits_saved: float = 1.0
    each: float | Mapping[str, float] = BITS_OF_FLOAT32

    def __post_init__(self) -> None:
        if not self.bits_saved >= 0:
            raise ValueError(f"price: expected 0 or more bits saved for a bit lost, found {self.bits_saved}")

    @override
    def keep(self, contests: Sequence[Contest]) -> Sequence[Kept]:
        least = 1 / self.bits_saved if self.bits_saved else math.inf
        return [[table >= least for table in contest.tables.values()] for contest in contests]


@dataclass(frozen=True)
class Erk(Fraction):
    """A fraction stays in all; in each tensor in proportion to Σ dimensions / Π dimensions, 1 at most.

    Erdős–Rényi kernel (Mocanu et al. 2018; Evci et al. 2020): small layers are pruned less than large ones. Requires
    contests within tensors. The fraction of all tensors' members, in [0, 1], is rounded as in `Density`.
    """

    fraction: float = 1.0

    @override
    def keep(self, contests: Sequence[Contest]) -> Sequence[Kept]:
        for contest in contests:
            if len(contest.tables) != 1 or len(contest.shapes) != 1:
                names = ", ".join(contest.tables)
                raise MismatchError(f"ERK: expected contests each within one tensor, found one of {names}")
        sizes = [contest.n * contest.n_rows for contest in contests]
        raw = [sum(shape) / max(shape.numel(), 1) for contest in contests for shape in contest.shapes.values()]
        densities = _capped(self.fraction * sum(sizes), sizes, raw)
        if all(contest.n_rows == 1 for contest in contests):
            counts = _rounded(self.fraction, sizes, densities)
            return [largest(contest.tables, k) for contest, k in zip(contests, counts, strict=True)]
        return [Density(density).keep([c])[0] for c, density in zip(contests, densities, strict=True)]


@dataclass(frozen=True)
class Rates(Budget):
    """A fraction for each tensor, by selector.

    Attributes:
        densities: fractions that stay, by selector (a name of a parameter or module, or ``re:…``); the first that
            matches counts.
        otherwise: fraction of tensors that no selector matches.
    """

    densities: Mapping[str, float]
    otherwise: float = 1.0

    def __post_init__(self) -> None:
        for selector, density in {**self.densities, "otherwise": self.otherwise}.items():
            _check_fraction(density, f"rate of {selector}")

    @override
    def keep(self, contests: Sequence[Contest]) -> Sequence[Kept]:
        names = [name for contest in contests for name in contest.tables]
        for selector in self.densities:
            if not any(matches(selector, name) for name in names):
                raise MismatchError(f"rates: expected a tensor that matches {selector!r}, found none")
        return [Density(self._density(contest)).keep([contest])[0] for contest in contests]

    def _density(self, contest: Contest) -> float:
        found = {
            next((density for selector, density in self.densities.items() if matches(selector, name)), self.otherwise)
            for name in contest.tables
        }
        if len(found) > 1:
            names = ", ".join(contest.tables)
            raise MismatchError(f"rates: expected each tensor to compete by itself, found {names} together")
        return found.pop()


def _check_fraction(value: float, of: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{of}: expected a fraction within [0, 1], found {value}")


def _n_kept(n: int, density: float) -> int:
    return n - round((1 - density) * n)


def _capped(wanted: float, sizes: Sequence[int], raw: Sequence[float]) -> list[float]:
    """Densities min(ε·raw, 1) at which `wanted` members stay."""
    dense: set[int] = set()
    while True:
        left = wanted - sum(sizes[i] for i in dense)
        share = sum(size * r for i, (size, r) in enumerate(zip(sizes, raw, strict=True)) if i not in dense)
        epsilon = left / share if share else 0.0
        over = {i for i, r in enumerate(raw) if i not in dense and epsilon * r > 1}
        if not over:
            return [1.0 if i in dense else epsilon * r for i, r in enumerate(raw)]
        dense |= over


def _rounded(fraction: float, sizes: Sequence[int], densities: Sequence[float]) -> list[int]:
    """Whole counts that make up the exact total: the largest remainders are rounded up."""
    shares = [size * density for size, density in zip(sizes, densities, strict=True)]
    counts = [int(share) for share in shares]
    missing = _n_kept(sum(sizes), fraction) - sum(counts)
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in [i for i in by_remainder if counts[i] < sizes[i]][:missing]:
        counts[i] += 1
    return counts
