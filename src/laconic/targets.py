"""Targets: what a compressed network must do, and which price to try next.

A higher price makes files longer and networks better. What is tried next depends only on what was tried, so a
search that was interrupted goes on from its trials.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

MOST_TRIALS = 20


@dataclass(frozen=True)
class Trial:
    """A file that was written, decoded and judged.

    Attributes:
        price: bits of file that a unit of loss was worth.
        n_bytes: the file's length.
        score: what `evaluate` said of the network that the file decodes to.
        data_bits: what that network takes to code the data's labels; 0 where that was not asked for.
        trained: whether it was trained under the code, or only rounded: prices are in different units.
    """

    price: float
    n_bytes: int
    score: float
    data_bits: float = 0.0
    trained: bool = False

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
    def misses(self, trial: Trial, score: float) -> float:
        """By how much a trial misses the target; 0 or less where not. `score` is the network's own."""

    @abstractmethod
    def cost(self, trial: Trial) -> float:
        """What is least in the best of the trials that meet it."""

    @abstractmethod
    def next_price(self, trials: Sequence[Trial], score: float, search: Search) -> float | None:
        """The price to try next; None when the search is over."""

    def best(self, trials: Sequence[Trial], score: float) -> Trial:
        """The one that meets the target at the least cost; if none meets it, the one that misses it least."""
        return min(trials, key=lambda trial: (max(self.misses(trial, score), 0.0), self.cost(trial)))


@dataclass(frozen=True)
class Shortest(Target):
    """The fewest bits for the model and for the data's labels given the model (Rissanen 1978)."""

    def misses(self, trial: Trial, score: float) -> float:
        """Nothing is asked."""
        del trial, score
        return 0.0

    def cost(self, trial: Trial) -> float:
        """All bits."""
        return trial.total_bits

    def next_price(self, trials: Sequence[Trial], score: float, search: Search) -> float | None:
        """Towards the least total: beyond the ends by factors of four, then between neighbours."""
        del score
        if not trials:
            return search.first
        ordered = sorted(trials, key=lambda trial: trial.price)
        at = min(range(len(ordered)), key=lambda i: ordered[i].total_bits)
        price = ordered[at].price
        if len(trials) >= MOST_TRIALS:
            return None
        if at == 0:  # no network is shorter than one of zeros
            return price / 4 if len(trials) == 1 or ordered[0].n_bytes < ordered[1].n_bytes else None
        if at == len(ordered) - 1:
            return price * 4
        below, above = price / ordered[at - 1].price, ordered[at + 1].price / price
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

    def misses(self, trial: Trial, score: float) -> float:
        """How far the score is below the lowest allowed."""
        return score - self.drop - trial.score

    def cost(self, trial: Trial) -> float:
        """The file's length."""
        return trial.n_bytes

    def next_price(self, trials: Sequence[Trial], score: float, search: Search) -> float | None:
        """Between the highest price that loses too much and the lowest that does not."""
        too_low = [self.misses(trial, score) > 0 for trial in trials]
        return _between(trials, too_low, search)


@dataclass(frozen=True)
class MaxBytes(Target):
    """The best network in a file of at most so many bytes."""

    n_bytes: int

    def __post_init__(self) -> None:
        if self.n_bytes < 1:
            raise ValueError(f"n_bytes: expected 1 or more, found {self.n_bytes}")

    def misses(self, trial: Trial, score: float) -> float:
        """The bytes too many."""
        del score
        return trial.n_bytes - self.n_bytes

    def cost(self, trial: Trial) -> float:
        """The score, turned round."""
        return -trial.score

    def next_price(self, trials: Sequence[Trial], score: float, search: Search) -> float | None:
        """Between the highest price whose file fits and the lowest whose file does not."""
        fits = [self.misses(trial, score) <= 0 for trial in trials]
        return _between(trials, fits, search)


def _between(trials: Sequence[Trial], too_low: Sequence[bool], search: Search) -> float | None:
    """The next price of a bisection, given which of the prices tried are to be exceeded."""
    if not trials:
        return search.first
    low = max((trial.price for trial, below in zip(trials, too_low, strict=True) if below), default=0.0)
    above = (trial.price for trial, below in zip(trials, too_low, strict=True) if not below)
    # Scores are not quite monotone: what lies below a price that is too low is not looked at again.
    high = min((price for price in above if price > low), default=math.inf)
    if len(trials) >= MOST_TRIALS or high <= search.ratio * low:
        return None
    if low == 0:
        return high / 4
    return low * 4 if high == math.inf else math.sqrt(low * high)
