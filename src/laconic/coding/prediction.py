"""Linear prediction of a matrix's columns from the columns before, exactly, in integers.

The columns of an embedding are correlated, and so are the inputs of some layers: a weight surprises less once those
before it in its row are known. The integer q_j is coded as its difference from ⌊(b_j + Σ_{k<j} c_jk q_k) / 2^s + ½⌋
with integer coefficients that are sent. They are the best linear predictors under the rows' own scales: with the
Cholesky factorisation of the weighted moments, Σ_i x_i x_iᵀ / σ_i² = L D Lᵀ for x = (1, q_1, q_2, …), they are the rows
of 1 − L⁻¹, rounded to a step that balances their bits against the bits that rounding costs.

Matrix products do the work: float64 holds all sums exactly, in any order, since they stay below 2^53, and so does
float32 if the magnitudes are such that no sum can reach 2^24.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.coding.fit import entropy_bits
from laconic.core.jit import F64, I32, I64, INT32_MAX, INT32_MIN, kernel

MAX_COLUMNS, MAX_SHIFT, MAX_COEFFICIENT = 1024, 10, (1 << 11) - 1
MAX_PREDICTED_Q = 1 << 20  # larger magnitudes are not predicted when encoding
MIN_GAIN_BITS_PER_WEIGHT = 0.005
MAX_ROWS = 1 << 14  # from which coefficients are computed
Floats: TypeAlias = NDArray[np.floating[Any]]
ROWS, COLUMNS = 512, 48  # predicted at a time
EXACT_IN_FLOAT32 = 1 << 24


@dataclass(frozen=True)
class Predictor:
    """Coefficients in units of 2^−shift, at most MAX_COEFFICIENT in magnitude."""

    shift: int  # s, at most MAX_SHIFT
    coefficients: I64  # (columns, columns + 1): the offset, then a strictly lower triangle for the columns before

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
        """The residuals of `q` (rows, columns) below MAX_PREDICTED_Q in magnitude; None if one exceeds 32 bits."""
        left = np.empty_like(q)
        largest: I64 = np.ones(q.shape[1], np.int64) * _largest(q)
        dtype = np.float32 if self._fits_float32(largest) else np.float64
        weights = self.coefficients.astype(dtype).T
        for rows in _slices(len(q), ROWS):
            x = np.ones((len(q[rows]), q.shape[1] + 1), dtype)
            x[:, 1:] = q[rows]
            for some in _slices(q.shape[1], COLUMNS):
                sums = x[:, : some.stop + 1] @ weights[: some.stop + 1, some]
                sums += (1 << self.shift) // 2
                sums *= 2.0**-self.shift
                exact = x[:, some.start + 1 : some.stop + 1] - np.floor(sums)
                if dtype is np.float64 and (exact.min() < INT32_MIN or exact.max() > INT32_MAX):
                    return None
                left[rows, some] = exact
        return left

    def integers(self, residuals: I32) -> I32 | None:
        """The inverse of `residuals`, in place; None if an integer exceeds 32 bits."""
        narrow, wide = (self.coefficients.astype(dtype) for dtype in (np.float32, np.float64))
        for rows in _slices(len(residuals), ROWS):
            left = residuals[rows]
            x = self._integers(left, narrow)
            if _largest(left) >= EXACT_IN_FLOAT32 or not self._fits_float32(np.maximum(x.max(1), -x.min(1))):
                x = self._integers(left, wide)
                if not (x.min() >= INT32_MIN and x.max() <= INT32_MAX):  # or NaN, after a larger one
                    return None
            residuals[rows] = x.T
        return residuals

    def _integers(self, residuals: I32, weights: Floats) -> Floats:
        """(columns, rows), exact as long as all sums before are."""
        x = np.ones((len(weights) + 1, len(residuals)), weights.dtype)
        x[1:] = residuals.T
        with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses the results
            for some in _slices(len(weights), COLUMNS):
                sums = weights[some, : some.start + 1] @ x[: some.start + 1]
                within = weights[some, some.start + 1 : some.stop + 1]
                _add_predictions(x[some.start + 1 : some.stop + 1], sums, within, self.shift)
        return x[1:]

    def _fits_float32(self, largest: NDArray[Any]) -> bool:
        """Whether float32 holds all sums over columns of these largest magnitudes, and the columns."""
        sums = np.abs(self.coefficients) @ np.append(1.0, largest) + (1 << self.shift)
        return bool(max(sums.max(), largest.max()) < EXACT_IN_FLOAT32)


def _slices(n: int, step: int) -> Iterator[slice]:
    for at in range(0, n, step):
        yield slice(at, min(at + step, n))


@kernel
def _add_predictions(x: Floats, sums: Floats, within: Floats, shift: int) -> None:
    """Add to each column of `x` (columns, rows) its prediction from the sums and the columns before it in `x`."""
    half, unit = x.dtype.type((1 << shift) // 2), x.dtype.type(2.0**-shift)
    for j in range(x.shape[0]):
        for k in range(j):
            factor = within[j, k]
            for row in range(x.shape[1]):
                sums[j, row] += factor * x[k, row]
        for row in range(x.shape[1]):
            x[j, row] += np.floor((sums[j, row] + half) * unit)


def can_predict(n_rows: int, n_columns: int) -> bool:
    """Whether there may be coefficients: they must be fewer than the integers, so that a small tensor stays small."""
    return 1 < n_columns <= min(MAX_COLUMNS, n_rows - 1)


def predictor(q: I32) -> Predictor | None:
    """The predictor estimated to save bits of the integers `q` (rows, columns); None if none does."""
    n_rows, n_columns = q.shape
    if not can_predict(n_rows, n_columns) or _largest(q) >= MAX_PREDICTED_Q:
        return None
    some = q[:: -(-n_rows // MAX_ROWS)]
    x = np.ones((len(some), n_columns + 1), np.float32)
    x[:, 1:] = some
    x /= np.sqrt(np.square(x[:, 1:]).mean(1) + 0.1)[:, None]
    moments: F64 = (x.T @ x).astype(np.float64) / len(x)
    moments[np.diag_indices_from(moments)] += 1e-3 * np.trace(moments) / len(moments)
    factor: NDArray[Any] = np.linalg.cholesky(moments)
    seems = len(some) * np.log2(np.sqrt(np.diag(moments)) / np.diag(factor))[1:].sum()
    by_chance = n_columns * (n_columns + 1) / 4 / np.log(2)  # noise too saves half a nat a coefficient
    if (seems - by_chance) * n_rows / len(some) < MIN_GAIN_BITS_PER_WEIGHT * q.size:
        return None
    inverse: NDArray[Any] = np.linalg.inv(factor / np.diag(factor))
    exact = (np.eye(n_columns + 1) - inverse)[1:]
    shift = int(np.clip(np.rint(np.log2(np.sqrt(n_rows / 12))), 0, MAX_SHIFT))
    rounded = np.clip(np.rint(exact * 2.0**shift), -MAX_COEFFICIENT, MAX_COEFFICIENT)
    rounded[:, 1:] = np.tril(rounded[:, 1:], -1)
    left = np.eye(n_columns + 1)[1:] - rounded / 2.0**shift
    variances = ((left @ moments) * left).sum(1)
    gain = n_rows * 0.5 * np.log2(np.diag(moments)[1:] / variances).sum()
    found = Predictor(shift, rounded.astype(np.int64))
    cost = entropy_bits(np.unique(found.flat, return_counts=True)[1])
    return found if gain - cost > MIN_GAIN_BITS_PER_WEIGHT * q.size else None


def _largest(q: I32) -> int:
    return max(-int(q.min()), int(q.max()))
