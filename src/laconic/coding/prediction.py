"""Linear prediction of a matrix's columns from the columns before, exactly, in integers.

The columns of an embedding are correlated, and so are the inputs of some layers: a weight is less of a
surprise once those before it in its row are known. The integer q_j is coded as its difference from ⌊(b_j +
Σ_{k<j} c_jk q_k) / 2^s + ½⌋ with integer coefficients that are sent. They are the best linear predictors
under the rows' own scales: with the Cholesky factorisation of the weighted moments,
Σ_i x_i x_iᵀ / σ_i² = L D Lᵀ for x = (1, q_1, q_2, …), they are the rows of 1 − L⁻¹, rounded to a step at
which their bits and what the rounding costs are balanced.

All sums stay below 2^53, so float64 holds them exactly in any order, and matrix products do the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.coding.fit import entropy_bits
from laconic.jit import F64, I32, I64, INT32_MAX, INT32_MIN, kernel

MOST_COLUMNS, MOST_SHIFT, MOST_COEFFICIENT = 1024, 10, (1 << 11) - 1
LARGEST_Q = 1 << 20  # that are predicted when encoding
WORTHWHILE = 0.005  # bits a weight, below which it is not tried
MOST_ROWS = 1 << 14  # that coefficients are computed from
ROWS, COLUMNS, SOME_COLUMNS = 1024, 64, 16  # that are predicted at a time


@dataclass(frozen=True)
class Predictor:
    """Coefficients in units of 2^−shift.

    Attributes:
        shift: s, at most MOST_SHIFT.
        coefficients: (columns, columns + 1): the offset, then those of the columns before, strictly lower
            triangular. At most MOST_COEFFICIENT in magnitude.
    """

    shift: int
    coefficients: I64

    @property
    def flat(self) -> I32:
        """The offsets, then the triangle, row by row."""
        lower = np.tril_indices(len(self.coefficients), -1)
        return np.concatenate([self.coefficients[:, 0], self.coefficients[:, 1:][lower]]).astype(np.int32)

    @classmethod
    def from_flat(cls, shift: int, n_columns: int, flat: I32) -> Predictor:
        """The inverse of `flat`."""
        coefficients = np.zeros((n_columns, n_columns + 1), np.int64)
        coefficients[:, 0] = flat[:n_columns]
        coefficients[:, 1:][np.tril_indices(n_columns, -1)] = flat[n_columns:]
        return cls(shift, coefficients)

    def residuals(self, q: I32) -> I32 | None:
        """What is left of the integers `q` (rows, columns), all of them below LARGEST_Q in magnitude.

        None where a residual has more than 32 bits.
        """
        left, weights = np.empty_like(q), self.coefficients.astype(np.float64)
        for rows in _slices(len(q), ROWS):
            x = _with_ones(q[rows])
            for some in _slices(q.shape[1], COLUMNS):
                sums = x[:, : some.stop + 1] @ weights[some, : some.stop + 1].T
                predicted = np.floor((sums + (1 << self.shift) // 2) / (1 << self.shift))
                exact = q[rows, some] - predicted
                if exact.min() < INT32_MIN or exact.max() > INT32_MAX:
                    return None
                left[rows, some] = exact
        return left

    def integers(self, residuals: I32) -> I32 | None:
        """The inverse of `residuals`; None where an integer has more than 32 bits."""
        q, weights = residuals.copy(), self.coefficients.astype(np.float64)
        for rows in _slices(len(q), ROWS):
            x = _with_ones(q[rows])
            for some in _slices(q.shape[1], SOME_COLUMNS):
                sums = x[:, : some.start + 1] @ weights[some, : some.start + 1].T
                within = self.coefficients[some, some.start + 1 : some.stop + 1]
                if not _add_predictions(q[rows, some], sums, within, self.shift):
                    return None
                x[:, some.start + 1 : some.stop + 1] = q[rows, some]
        return q


def _slices(n: int, step: int) -> Iterator[slice]:
    for at in range(0, n, step):
        yield slice(at, min(at + step, n))


def _with_ones(q: I32) -> F64:
    return np.column_stack([np.ones(len(q)), q.astype(np.float64)])


@kernel
def _add_predictions(q: I32, sums: F64, within: I64, shift: int) -> bool:
    """Add to each column what the sums, and the columns before in this block, predict of it."""
    for row in range(q.shape[0]):
        for j in range(q.shape[1]):
            total = np.int64(sums[row, j]) + (1 << shift) // 2
            for k in range(j):
                total += within[j, k] * q[row, k]
            value = q[row, j] + (total >> shift)
            if not INT32_MIN <= value <= INT32_MAX:
                return False
            q[row, j] = value
    return True


def can_predict(n_rows: int, n_columns: int) -> bool:
    """Whether there may be coefficients: fewer than integers, so that they cannot swell a small tensor."""
    return 1 < n_columns <= min(MOST_COLUMNS, n_rows - 1)


def predictor(q: I32) -> Predictor | None:
    """The predictor that pays for the integers `q` (rows, columns), by estimate; None where none does."""
    n_rows, n_columns = q.shape
    if not can_predict(n_rows, n_columns) or _largest(q) >= LARGEST_Q:
        return None
    x = _with_ones(q[:: -(-n_rows // MOST_ROWS)]).astype(np.float32)
    energy = np.square(x[:, 1:]).mean(1) + 0.1
    x /= np.sqrt(energy)[:, None]
    moments: F64 = (x.T @ x).astype(np.float64) / len(x)
    moments[np.diag_indices_from(moments)] += 1e-3 * np.trace(moments) / len(moments)
    factor: NDArray[Any] = np.linalg.cholesky(moments)
    inverse: NDArray[Any] = np.linalg.inv(factor / np.diag(factor))
    exact = (np.eye(n_columns + 1) - inverse)[1:]
    shift = int(np.clip(np.rint(np.log2(np.sqrt(n_rows / 12))), 0, MOST_SHIFT))
    rounded = np.clip(np.rint(exact * 2.0**shift), -MOST_COEFFICIENT, MOST_COEFFICIENT)
    rounded[:, 1:] = np.tril(rounded[:, 1:], -1)
    left = np.eye(n_columns + 1)[1:] - rounded / 2.0**shift
    variances = ((left @ moments) * left).sum(1)
    gain = n_rows * 0.5 * np.log2(np.diag(moments)[1:] / variances).sum()
    found = Predictor(shift, rounded.astype(np.int64))
    cost = entropy_bits(np.unique(found.flat, return_counts=True)[1])
    return found if gain - cost > WORTHWHILE * q.size else None


def _largest(q: I32) -> int:
    return max(-int(q.min()), int(q.max()))
