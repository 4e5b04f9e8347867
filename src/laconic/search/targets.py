"""Targets: what a compressed network must do, and which price to try next.

A higher price makes files longer and networks better. The next price depends only on the attempts so far, so an
interrupted search continues from its attempts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import ClassVar, Literal, TypeAlias

from typing_extensions import override

from laconic.description.ledger import Measurement

MAX_ATTEMPTS = 20
MAX_SHARE = 0.95  # largest part of the fewest total bits that a file may take for longer files to be tried
How: TypeAlias = Literal["as it was", "all zeros", "rounded", "trained"]


@dataclass(frozen=True)
class Attempt:
    """A file that was written, decoded and judged.

    Attributes:
        price: bits of file that a unit of loss was worth: infinite for the network as it was, 0 for all zeros.
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
    """The first price of a search, and the ratio of neighbouring prices that are close enough."""

    first: float
    ratio: float


class Target(ABC):
    """What is asked of the file.

    Attributes:
        missed_below: whether files miss the target at prices that are too low, rather than too high.
    """

    missed_below: ClassVar[bool] = True

    @property
    @abstractmethod
    def label(self) -> str:
        """What is asked for, in words."""

    @abstractmethod
    def misses(self, measured: Measurement, score: float) -> float:
        """By how much a file misses the target; 0 or less if it meets it. `score` is the original network's."""

    @abstractmethod
    def cost(self, measured: Measurement) -> float:
        """The quantity to minimise among the files that meet the target."""

    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        """The price to try next, by bisection; None when the search is over."""
        if not attempts:
            return search.first
        low, above = 0.0, list[float]()
        for attempt in attempts:
            if (self.misses(attempt.measured, score) > 0) == self.missed_below:
                low = max(low, attempt.price)
            else:
                above.append(attempt.price)
        # Scores are not quite monotone: prices below one that is too low are ignored.
        high = min((price for price in above if price > low), default=math.inf)
        if len(attempts) >= MAX_ATTEMPTS or high <= search.ratio * low:
            return None
        if low == 0:
            lowest = sorted(attempts, key=lambda attempt: attempt.price)[:2]
            nothing_went = len(lowest) == 2 and lowest[0].measured.n_bytes == lowest[1].measured.n_bytes
            return None if nothing_went else high / 4
        return low * 4 if high == math.inf else math.sqrt(low * high)

    def hopeless(self, ends: Sequence[Attempt], score: float) -> bool:
        """Whether no price can meet the target, since the end of the prices where files should meet it misses it."""
        best_end = (max if self.missed_below else min)(ends, key=lambda attempt: attempt.price)
        return self.misses(best_end.measured, score) > 0

    def to_train(self, attempts: Sequence[Attempt], score: float) -> Attempt:
        """The best attempt to train from, among those that keep half of the network's lead over all zeros."""
        nothing = min(attempts, key=lambda attempt: attempt.price).measured.score
        alive = [attempt for attempt in attempts if 2 * attempt.measured.score >= score + nothing]
        return self.best(alive or attempts, score)

    def best(self, attempts: Sequence[Attempt], score: float) -> Attempt:
        """The attempt that meets the target at the least cost; if none meets it, the one that misses it least.

        An attempt that meets it by luck does not count: one whose procedure misses it at a price that should do better.
        """
        missed = [a for a in attempts if self.misses(a.measured, score) > 0]

        def rank(attempt: Attempt) -> tuple[bool, float, float]:
            worse = [a for a in missed if a.how == attempt.how and (a.price > attempt.price) == self.missed_below]
            by_luck = any(a.price != attempt.price for a in worse)
            return by_luck, max(self.misses(attempt.measured, score), 0.0), self.cost(attempt.measured)

        return min(attempts, key=rank)


@dataclass(frozen=True)
class Shortest(Target):
    """The fewest bits for the model and for the data's labels given the model (Rissanen 1978)."""

    @override
    def misses(self, measured: Measurement, score: float) -> float:
        return 0.0

    @property
    @override
    def label(self) -> str:
        return "the fewest bits in all"

    @override
    def cost(self, measured: Measurement) -> float:
        return measured.total_bits

    @override
    def next_price(self, attempts: Sequence[Attempt], score: float, search: Search) -> float | None:
        # Up while a longer file may pay, down while a shorter one does; then between neighbours. It starts at good
        # networks, because labels given a badly rounded one can cost more than given none.
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
            shorter = len(attempts) == 1 or ordered[0].measured.n_bytes < ordered[1].measured.n_bytes
            return price / 4 if shorter else None
        below = price / ordered[at - 1].price
        above = ordered[at + 1].price / price if at < len(ordered) - 1 else 1.0
        if max(below, above) <= search.ratio**2:
            return None
        return price * math.sqrt(above) if above >= below else price / math.sqrt(below)


@dataclass(frozen=True)
class MaxDrop(Target):
    """The shortest file whose network loses at most `drop` of the original's score: 0.01 is a hundredth of accuracy.

    Attributes:
        drop: the largest loss, in the score's unit.
        confidence: probability at which the loss on new examples is no larger. The losses on the examples at hand are
            compared in pairs, and count as larger by their standard error times the normal quantile. Where the score
            is a function's, whose error is not known, it counts as it is.
    """

    drop: float
    confidence: float = field(default=0.95, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.drop < math.inf:
            raise ValueError(f"drop: expected 0 or more, found {self.drop}")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence: expected within [0.5, 1), found {self.confidence}")

    @property
    def quantile(self) -> float:
        """How many standard errors are added to a loss."""
        return NormalDist().inv_cdf(self.confidence)

    def largest_drop(self, measured: Measurement, score: float) -> float:
        """The loss of score, at the confidence's bound."""
        error = 0.0 if math.isnan(measured.score_error) else measured.score_error
        return score - measured.score + self.quantile * error

    @override
    def misses(self, measured: Measurement, score: float) -> float:
        return self.largest_drop(measured, score) - self.drop

    @property
    @override
    def label(self) -> str:
        return f"a drop of at most {self.drop:g}"

    @override
    def cost(self, measured: Measurement) -> float:
        return measured.n_bytes


@dataclass(frozen=True)
class MaxBytes(Target):
    """The best network in a file of at most so many bytes."""

    n_bytes: int
    missed_below: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n_bytes < 1:
            raise ValueError(f"n_bytes: expected 1 or more, found {self.n_bytes}")

    @override
    def misses(self, measured: Measurement, score: float) -> float:
        return measured.n_bytes - self.n_bytes

    @property
    @override
    def label(self) -> str:
        return f"at most {self.n_bytes:,} bytes"

    @override
    def cost(self, measured: Measurement) -> float:
        return -measured.score
