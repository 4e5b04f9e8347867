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

MOST_ATTEMPTS = 20
WORTHWHILE = 0.95  # of the fewest bits in all: a longer file saves no more than the data's bits
How: TypeAlias = Literal["as it was", "all zeros", "rounded", "trained"]


@dataclass(frozen=True)
class Attempt:
    """A file that was written, decoded and judged.

    Attributes:
        price: bits of file that a unit of loss was worth: infinitely many for the network as it was, none for
            all zeros.
        n_bytes: the file's length.
        score: what `evaluate` said of the network that the file decodes to.
        data_bits: what that network takes to code the data's labels; 0 where that was not asked for.
        how: it came about; prices of rounding and of training are in different units.
    """

    price: float
    n_bytes: int
    score: float
    data_bits: float = 0.0
    how: How = "rounded"

    @property
    def label(self) -> str:
        """How it came about, and the price if there was one."""
        return f"{self.how}, price {self.price:.4g}" if 0 < self.price < math.inf else self.how

    @property
    def total_bits(self) -> float:
        """Bits for the model and for the data given the model."""
        return 8 * self.n_bytes + self.data_bits


@dataclass(frozen=True)
class Search:
    """Where a search over prices begins, and when neighbouring prices are close enough."""

    first: float
    ratio: float


class Target(ABC):
    """What is asked of the file."""

    @abstractmethod
    def misses(self, attempt: Attempt, score: float) -> float:
        """By how much an attempt misses the target; 0 or less where not. `score` is the network's own."""

    @abstractmethod
    def cost(self, attempt: Attempt) -> float:
        """What is least in the best of the attempts that meet it."""

    @abstractmethod
    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """The price to try next; None when the search is over."""

    def to_train(self, attempts: Sequence[Attempt], score: float) -> Attempt:
        """The best one to train from: of those that keep half of what sets the network apart from zeros."""
        nothing = min(attempts, key=lambda attempt: attempt.price).score
        alive = [attempt for attempt in attempts if 2 * attempt.score >= score + nothing]
        return self.best(alive or attempts, score)

    def best(self, attempts: Sequence[Attempt], score: float) -> Attempt:
        """The one that meets the target at the least cost; if none meets it, the one that misses it least."""
        return min(attempts, key=lambda attempt: (max(self.misses(attempt, score), 0.0), self.cost(attempt)))


@dataclass(frozen=True)
class Shortest(Target):
    """The fewest bits for the model and for the data's labels given the model (Rissanen 1978)."""

    def misses(self, attempt: Attempt, score: float) -> float:
        """Nothing is asked."""
        del attempt, score
        return 0.0

    def cost(self, attempt: Attempt) -> float:
        """All bits."""
        return attempt.total_bits

    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """Up as long as a longer file may pay, down as long as a shorter one does; then between neighbours.

        Coming from good networks: labels given a badly rounded one can cost more than given none.
        """
        del score
        if not attempts:
            return search.first
        ordered = sorted(attempts, key=lambda attempt: attempt.price)
        at = min(range(len(ordered)), key=lambda i: ordered[i].total_bits)
        price, last = ordered[at].price, ordered[-1]
        if len(attempts) >= MOST_ATTEMPTS:
            return None
        if 8 * last.n_bytes < WORTHWHILE * ordered[at].total_bits:
            return last.price * 4
        if at == 0:  # no network is shorter than one of zeros
            return price / 4 if len(attempts) == 1 or ordered[0].n_bytes < ordered[1].n_bytes else None
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

    def misses(self, attempt: Attempt, score: float) -> float:
        """How far the score is below the lowest allowed."""
        return score - self.drop - attempt.score

    def cost(self, attempt: Attempt) -> float:
        """The file's length."""
        return attempt.n_bytes

    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """Between the highest price that loses too much and the lowest that does not."""
        too_low = [self.misses(attempt, score) > 0 for attempt in attempts]
        return _between(attempts, too_low, search)


@dataclass(frozen=True)
class MaxBytes(Target):
    """The best network in a file of at most so many bytes."""

    n_bytes: int

    def __post_init__(self) -> None:
        if self.n_bytes < 1:
            raise ValueError(f"n_bytes: expected 1 or more, found {self.n_bytes}")

    def misses(self, attempt: Attempt, score: float) -> float:
        """The bytes too many."""
        del score
        return attempt.n_bytes - self.n_bytes

    def cost(self, attempt: Attempt) -> float:
        """The score, turned round."""
        return -attempt.score

    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """Between the highest price whose file fits and the lowest whose file does not."""
        fits = [self.misses(attempt, score) <= 0 for attempt in attempts]
        return _between(attempts, fits, search)


def _between(attempts: Sequence[Attempt], too_low: Sequence[bool], search: Search) -> float | None:
    """The next price of a bisection, given which of the prices tried are to be exceeded."""
    if not attempts:
        return search.first
    low = max((attempt.price for attempt, below in zip(attempts, too_low, strict=True) if below), default=0.0)
    above = (attempt.price for attempt, below in zip(attempts, too_low, strict=True) if not below)
    # Scores are not quite monotone: what lies below a price that is too low is not looked at again.
    high = min((price for price in above if price > low), default=math.inf)
    if len(attempts) >= MOST_ATTEMPTS or high <= search.ratio * low:
        return None
    if low == 0:
        return high / 4
    return low * 4 if high == math.inf else math.sqrt(low * high)
