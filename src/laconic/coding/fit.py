"""Fitting a static model: the range of the tables, the classes of rows, the resolution.

Every choice is made by the same sum, in bits: symbols under the rounded tables + tables + escapes + the
rows' classes. Rows are clustered on coarse profiles (a histogram over the magnitude's logarithm), by
k-means with code lengths for distances, started from the rows' order by mean magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.coding.bits import rice_bits
from laconic.coding.symbol_models import (
    MOST_CLASSES,
    PRECISIONS,
    RESOLUTIONS,
    StaticModel,
    best_rice_order,
    class_histograms,
    levels_and_bits,
)
from laconic.jit import I32, I64, U8, kernel

WIDEST_TABLE = 2048
N_BUCKETS = 24
N_ROUNDS = 6
RAREST = (0, 1, 2, 4, 8, 16, 32)  # symbols seen no more often than this may leave the table's ends


@dataclass(frozen=True)
class _Candidate:
    """Tables for one range and rounding, and what everything costs with them, in bits."""

    first: int  # within the histogram's window
    levels: I64
    resolution: int
    precision: int
    bits: float


def fit(q: I32, n_rows: int, rarest: tuple[int, ...] = RAREST) -> StaticModel:
    """The model with which the integers `q` (flat, `n_rows` equal rows, not empty) code shortest.

    `rarest` lists the counts up to which symbols at the tables' ends may become escapes.
    """
    lo, width = _window(q)
    single = np.zeros(n_rows, np.uint8)
    best, row_class = _tables(class_histograms(q, single, 1, lo, width), rarest), single
    clustered, n_classes = _cluster(q, n_rows)
    if n_classes > 1:
        candidate = _tables(class_histograms(q, clustered, n_classes, lo, width), rarest)
        class_bits = _entropy_bits(np.bincount(clustered)) + 10 * 8  # a nested stream of their own
        if candidate.bits + class_bits < best.bits:
            best, row_class = candidate, clustered
    return StaticModel(lo + best.first, best.levels, best.resolution, best.precision, row_class)


def _window(q: I32) -> tuple[int, int]:
    """A range of at most WIDEST_TABLE integers that holds the bulk of `q`."""
    lo, hi = int(q.min()), int(q.max())
    if hi - lo < WIDEST_TABLE:
        return lo, hi - lo + 1
    middle = int(np.median(q[:: max(1, q.size // 65536)]))
    lo = min(max(lo, middle - WIDEST_TABLE // 2), hi - WIDEST_TABLE + 1)
    return lo, WIDEST_TABLE


def _entropy_bits(counts: I64) -> float:
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def _tables(counts: I64, rarest: tuple[int, ...]) -> _Candidate:
    """The cheapest tables for `counts` (classes, window + 1)."""
    width = counts.shape[1] - 1
    total = counts.sum(0)
    tried: set[tuple[int, int]] = set()
    best: _Candidate | None = None
    for rare in rarest:
        frequent = np.flatnonzero(total[:width] > rare)
        if frequent.size == 0:
            break
        span = (int(frequent[0]), int(frequent[-1]) + 1)
        if span not in tried:
            tried.add(span)
            best = _better(best, _cost(counts, span, 2, PRECISIONS[-1]))
    if best is None:  # everything lies outside the window: one escape's table
        return _cost(counts, (0, 1), 1, PRECISIONS[0])
    span = (best.first, best.first + best.levels.shape[1] - 1)
    for resolution in RESOLUTIONS:
        for precision in PRECISIONS:
            best = _better(best, _cost(counts, span, resolution, precision))
    return best


def _better(a: _Candidate | None, b: _Candidate) -> _Candidate:
    # The smaller precision decodes from a smaller cache: a hundredth of a percent is not worth it.
    return a if a and a.bits <= b.bits * (1.0001 if b.precision > a.precision else 0.9999) else b


def _cost(counts: I64, span: tuple[int, int], resolution: int, precision: int) -> _Candidate:
    first, last = span
    inside = counts[:, first:last]
    trimmed = np.empty((len(counts), last - first + 1), np.int64)
    trimmed[:, :-1] = inside
    trimmed[:, -1] = counts.sum(1) - inside.sum(1)
    levels = np.zeros_like(trimmed)
    bits = sum(levels_and_bits(row, resolution, precision, levels[c]) for c, row in enumerate(trimmed))
    codes = StaticModel(0, levels, resolution, precision, np.zeros(1, np.uint8)).table_codes()
    table_bits = rice_bits(codes, best_rice_order(codes))
    escape_bits = _escape_bits(counts, first, last)
    return _Candidate(first, levels, resolution, precision, bits + table_bits + escape_bits)


@kernel
def _escape_bits(counts: I64, first: int, last: int) -> float:
    """What escapes' own codes take, about: twice the logarithm of how far outside the range they lie."""
    total = 0.0
    width = counts.shape[1] - 1
    for c in range(counts.shape[0]):
        for i in range(first):
            total += counts[c, i] * (2 * np.log2(first - i) + 2)
        for i in range(last, width):
            total += counts[c, i] * (2 * np.log2(i - last + 1) + 2)
        total += counts[c, width] * 2 * np.log2(WIDEST_TABLE)
    return total


@kernel
def _profiles(q: I32, n_rows: int, bucket: U8) -> NDArray[np.float64]:
    """(rows, buckets) counts of |q| by the logarithm of its magnitude."""
    profiles = np.zeros((n_rows, N_BUCKETS))
    n_columns = q.size // n_rows
    for row in range(n_rows):
        mine = profiles[row]
        for i in range(row * n_columns, (row + 1) * n_columns):
            mine[bucket[min(abs(np.int64(q[i])), bucket.size - 1)]] += 1
    return profiles


def _cluster(q: I32, n_rows: int) -> tuple[U8, int]:
    """The class of each row, and how many classes, by the coarse profiles' estimate of all costs."""
    most = min(MOST_CLASSES, n_rows // 2)
    if most < 2 or q.size < 512:
        return np.zeros(n_rows, np.uint8), 1
    magnitudes = np.arange(1 << 12)
    bucket = np.minimum(
        np.where(magnitudes < 4, magnitudes, 2 * np.log2(np.maximum(magnitudes, 1))), N_BUCKETS - 1
    )
    profiles = _profiles(q, n_rows, bucket.astype(np.uint8))
    order = np.argsort(profiles @ np.arange(N_BUCKETS), kind="stable")
    sample = np.abs(q[:: max(1, q.size // 65536)].astype(np.int64))
    n_symbols = 2 * np.count_nonzero(np.bincount(np.minimum(sample, 255)))
    best_bits, best_class = _entropy_bits(profiles.sum(0)) + 4 * n_symbols, None
    n_classes = 2
    while n_classes <= most:
        rank = np.empty(n_rows, np.int64)
        rank[order] = np.arange(n_rows) * n_classes // n_rows
        bits, row_class = _k_means(profiles, rank, n_classes)
        bits += 4 * n_symbols * n_classes
        if bits < best_bits:
            best_bits, best_class = bits, row_class
        n_classes *= 2
    if best_class is None:
        return np.zeros(n_rows, np.uint8), 1
    used, labels = np.unique(best_class, return_inverse=True)  # k-means may empty a class
    return labels.astype(np.uint8), len(used)


def _k_means(profiles: NDArray[np.float64], row_class: I64, n_classes: int) -> tuple[float, I64]:
    bits = np.inf
    for _ in range(N_ROUNDS):
        sums = np.eye(n_classes)[row_class].T @ profiles
        shares = (sums + 0.05) / (sums + 0.05).sum(1, keepdims=True)
        labels = np.bincount(row_class, minlength=n_classes) + 0.5
        costs = profiles @ -np.log2(shares).T - np.log2(labels / labels.sum())
        row_class = costs.argmin(1)
        previous, bits = bits, float(costs[np.arange(len(costs)), row_class].sum())
        if previous - bits < 1e-4 * bits:
            break
    return bits, row_class
