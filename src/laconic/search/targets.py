"""Targets: what a compressed network must do, and which price to try next.

A higher price makes files longer and networks better. What is tried next depends only on what was tried, so a
search that was interrupted goes on from its attempts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from laconic.description.measurement import Measurement

MAX_ATTEMPTS = 20
MAX_SHARE = 0.95  # of the fewest bits in all that a file may take for longer ones to be tried
How: TypeAlias = Literal["as it was", "all zeros", "rounded", "trained"]


@dataclass(frozen=True)
class Attempt:
    """A file that was written, decoded and judged.

    Attributes:
        price: bits of file that a unit of loss was worth: infinitely many for the network as it was, none for
            all zeros.
        how: which procedure wrote it. Prices are comparable only within one procedure.
        measured: length, score and, where the target asks for them, data bits.
    """

    price: float
    how: How
    measured: Measurement

    @property
    def label(self) -> str:
        """The procedure, and the price if there was one."""
        return f"{self.how}, price {self.price:.4g}" if 0 < self.price < math.inf else self.how


@dataclass(frozen=True)
class Search:
    """Where a search over prices begins, and when neighbouring prices are close enough."""

    first: float
    ratio: float


class Target(ABC):
    """What is asked of the file."""

    @abstractmethod
    def misses(self, measured: Measurement, score: float) -> float:
        """By how much a file misses the target; 0 or less if it meets it. `score` is that of the original."""

    @abstractmethod
    def cost(self, measured: Measurement) -> float:
        """What the best of the files that meet the target has least of."""

    @abstractmethod
    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """The price to try next; None when the search is over."""

    def to_train(self, attempts: Sequence[Attempt], score: float) -> Attempt:
        """The best one to train from: of those that keep half of what sets the network apart from zeros."""
        nothing = min(attempts, key=lambda attempt: attempt.price).measured.score
        alive = [attempt for attempt in attempts if 2 * attempt.measured.score >= score + nothing]
        return self.best(alive or attempts, score)

    def best(self, attempts: Sequence[Attempt], score: float) -> Attempt:
        """The one that meets the target at the least cost; if none meets it, the one that misses it least."""
        return min(
            attempts, key=lambda attempt: (max(self.misses(attempt.measured, score), 0.0), self.cost(attempt.measured))
        )


@dataclass(frozen=True)
class Shortest(Target):
    """The fewest bits for the model and for the data's labels given the model (Rissanen 1978)."""

    def misses(self, measured: Measurement, score: float) -> float:
        """Nothing is asked."""
        del measured, score
        return 0.0

    def cost(self, measured: Measurement) -> float:
        """All bits."""
        return measured.total_bits

    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """Up as long as a longer file may pay, down as long as a shorter one does; then between neighbours.

        Coming from good networks: labels given a badly rounded one can cost more than given none.
        """
        del score
        if not attempts:
            return search.first
        ordered = sorted(attempts, key=lambda attempt: attempt.price)
        at = min(range(len(ordered)), key=lambda i: ordered[i].measured.total_bits)
        price, last = ordered[at].price, ordered[-1]
        if len(attempts) >= MAX_ATTEMPTS:
            return None
        if 8 * last.measured.n_bytes < MAX_SHARE * ordered[at].measured.total_bits:
            return last.price * 4
        if at == 0:  # no network is shorter than one of zeros
            return (
                price / 4 if len(attempts) == 1 or ordered[0].measured.n_bytes < ordered[1].measured.n_bytes else None
            )
        below = price / ordered[at - 1].price
        above = ordered[at + 1].price / price if at < len(ordered) - 1 else 1.0
        if max(below, above) <= search.ratio**2:
            return None
        return price * math.sqrt(above) if above >= below else price / math.sqrt(below)


@dataclass(frozen=True)
class MaxDrop(Target):
    """The shortest file whose network scores at most so much less than the one it was made from.

    Attributes:
        drop: in units of the score: 0.01 is a hundredth of accuracy.
    """

    drop: float

    def __post_init__(self) -> None:
        if not 0 <= self.drop < math.inf:
            raise ValueError(f"drop: expected 0 or more, found {self.drop}")

    def misses(self, measured: Measurement, score: float) -> float:
        """How far the score is below the lowest allowed."""
        return score - self.drop - measured.score

    def cost(self, measured: Measurement) -> float:
        """The file's length."""
        return measured.n_bytes

    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """Between the highest price that loses too much and the lowest that does not."""
        too_low = [self.misses(attempt.measured, score) > 0 for attempt in attempts]
        return _between(attempts, too_low, search)


@dataclass(frozen=True)
class MaxBytes(Target):
    """The best network in a file of at most so many bytes."""

    n_bytes: int

    def __post_init__(self) -> None:
        if self.n_bytes < 1:
            raise ValueError(f"n_bytes: expected 1 or more, found {self.n_bytes}")

    def misses(self, measured: Measurement, score: float) -> float:
        """The bytes too many."""
        del score
        return measured.n_bytes - self.n_bytes

    def cost(self, measured: Measurement) -> float:
        """The score, turned round."""
        return -measured.score

    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """Between the highest price whose file fits and the lowest whose file does not."""
        fits = [self.misses(attempt.measured, score) <= 0 for attempt in attempts]
        return _between(attempts, fits, search)


def _between(attempts: Sequence[Attempt], too_low: Sequence[bool], search: Search) -> float | None:
    """The next price of a bisection, given which of the prices tried are to be exceeded."""
    if not attempts:
        return search.first
    low = max((attempt.price for attempt, below in zip(attempts, too_low, strict=True) if below), default=0.0)
    above = (attempt.price for attempt, below in zip(attempts, too_low, strict=True) if not below)
    # Scores are not quite monotone: what lies below a price that is too low is not looked at again.
    high = min((price for price in above if price > low), default=math.inf)
    if len(attempts) >= MAX_ATTEMPTS or high <= search.ratio * low:
        return None
    if low == 0:
        return high / 4
    return low * 4 if high == math.inf else math.sqrt(low * high)
