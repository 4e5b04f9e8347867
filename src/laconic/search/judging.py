"""Judging: a network's score, and how sure its difference from another network's is.

Two networks are compared on the same examples, in pairs: most examples are right or wrong under both, so the standard
error of the difference is much smaller than that of either score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch import nn

from laconic.datasets.adapter import seeded
from laconic.description.describe import DataCode, evaluate
from laconic.description.ledger import Measurement
from laconic.model.objective import Batches, Objective, as_number
from laconic.search.targets import MaxDrop, Target

Score: TypeAlias = Callable[[nn.Module], Any]


@dataclass
class Judge:
    """Judges networks by a function, or by examples.

    Attributes:
        examples: batches whose targets are predicted.
        objective: what these targets are.
        score: a function from a network to its score; by default the objective's.
        minimize: whether lower scores of the function are better; they are negated.
        in_bits: whether the targets' bits are counted too.
        name: what the examples are, in words.
        original: what the network itself got on the examples.
    """

    examples: Batches
    objective: Objective
    score: Score | None = None
    minimize: bool = False
    in_bits: bool = False
    name: str = "examples"
    original: DataCode | None = None

    def __call__(self, network: nn.Module) -> Measurement:
        """Measure a network; the first one is the original, with which others are compared.

        NaN ranks below every score: the correlation of a constant output, for example, is undefined.

        Raises:
            MismatchError: the function's score is no number, or the examples do not fit the objective.
        """
        code, score, error = None, math.nan, math.nan
        if self.in_bits or self.score is None:
            with seeded(0):  # the same order of examples for every network
                code = evaluate(network, self.examples, self.objective)
            self.original = self.original or code
        if self.score is not None:
            score = as_number(self.score(network), self.score) * (-1 if self.minimize else 1)
        elif code is not None and self.original is not None:
            score, error = code.score, difference_error(self.original, code)
        score = -math.inf if math.isnan(score) else score
        bits = code.bits if code and self.in_bits else math.nan
        return Measurement(score=score, score_error=error, data_bits=bits)

    @property
    def label(self) -> str:
        """Who judges, in words."""
        if self.score is not None:
            function = self.score.func if isinstance(self.score, partial) else self.score
            return f"the function {getattr(function, '__name__', type(function).__name__)}"
        return f"{self.original.n_examples:,} {self.name}" if self.original else self.name

    def identity(self, own: Measurement) -> str:
        """What tells this judge apart: what the network itself got, in digits that do not depend on threads."""
        code = self.original
        on = f" on {code.n_examples} examples, {code.bits:.6g} bits" if code else ""
        return f"score {own.score:.6g}{on}{' that count' if self.in_bits else ''}"

    def settle(self, network: nn.Module) -> None:
        """Let the network itself show, on the first batch, what the targets are: a rounded one might show less."""
        if self.score is None or self.in_bits:
            with seeded(0):  # iterating a loader draws
                batch = next(iter(self.examples), None)
            if batch is not None:
                with self.objective.on(network) as answer:
                    self.objective = self.objective.settled(answer(batch))


def difference_error(original: DataCode, code: DataCode) -> float:
    """Standard error of `code.score − original.score`, by the differences of examples.

    For right answers, an example that only the one network has right and one that only the other has are added (Agresti
    & Min 2005), so that a few examples without a difference are no certainty. NaN if there is one example.
    """
    mine, theirs = code.entries, original.entries
    if mine is None or theirs is None or len(mine.nats) != len(theirs.nats) or len(mine.nats) < 2:
        return math.nan
    if bool((mine.nats == theirs.nats).all()):
        return 0.0
    n, labels = len(mine.nats), float(mine.n_labels.sum())
    if mine.n_right is not None and theirs.n_right is not None:
        differences = (mine.n_right - theirs.n_right).double()
        mean = float(differences.mean())
        squares = float((differences - mean).square().sum()) + 2.0
        return math.sqrt(squares) / labels * n / (n + 2)
    # Σ nats / Σ labels, with both sums over examples
    differences = (theirs.nats - mine.nats).double() - (original.loss - code.loss) * mine.n_labels
    return math.sqrt(float(differences.square().sum()) * n / (n - 1)) / labels


def too_few(original: DataCode | None, measured: Sequence[Measurement], target: Target) -> str:
    """What to say where examples are too few to tell the target's drop apart, and how many would do; else nothing."""
    errors = [m.score_error for m in measured if m.score_error > 0 and m.score > -math.inf]
    if original is None or original.entries is None or not errors or not isinstance(target, MaxDrop) or not target.drop:
        return ""
    n, margin = len(original.entries.nats), target.quantile * min(errors)
    if 2 * margin <= target.drop:
        return ""
    needed = math.ceil(n * (2 * margin / target.drop) ** 2)
    return f"{n:,} examples are too few to tell a drop of {target.drop:g} apart; about {needed:,} would do"
