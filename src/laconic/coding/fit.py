"""Fitting a static model: the range of the tables, the classes, the tables' kind and resolution.

Every choice is made by the same sum, in bits: symbols under the rounded tables + tables + escapes + the
labels. Classes are found in two ways. Rows are clustered on coarse profiles (a histogram over the magnitude's
logarithm), by k-means with code lengths for distances; these classes know no order. Or rows and columns are
labelled by the logarithm of their mean magnitude, so that classes are scales: the class of a weight is its
row's less its column's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from laconic.coding import tables
from laconic.coding.bits import rice_bits
from laconic.coding.symbol_models import (
    ALL_COLUMNS_ALIKE,
    MOST_CLASSES,
    PRECISIONS,
    StaticModel,
    class_histograms,
)
from laconic.coding.tables import PEAK, RESOLUTIONS, Formula, Levels, Tables, best_rice_order
from laconic.jit import F64, I32, I64, U8, kernel

WIDEST_TABLE = 2048
N_BUCKETS = 24
N_ROUNDS = 6
SMALLEST_CLUSTERED = 512
BELOW = 0.3  # a magnitude that integers cannot tell from zero
MISMATCH = 0.053  # 2 ln 2 times the bits a weight that a scale wrong by an octave costs, measured
FIRST_EXPONENT, LAST_EXPONENT = 12, 32  # of a formula, in eighths
MOST_MOVES = 12
RAREST = (0, 1, 2, 4, 8, 16, 32)  # symbols seen no more often than this may leave the table's ends


@dataclass(frozen=True)
class _Classes:
    """A class for each row, a drop for each column, and what saying so takes."""

    rows: U8
    columns: U8
    n: int
    bits: float
    growth: int | None = None  # of scales, in sixteenths of an octave from class to class

    def model(self, lo: int, candidate: _Candidate) -> StaticModel:
        return StaticModel(
            lo + candidate.first,
            candidate.width,
            candidate.tables,
            candidate.precision,
            self.rows,
            self.columns,
        )


@dataclass(frozen=True)
class _Candidate:
    """Tables for one range and rounding, and what everything costs with them, in bits."""

    first: int  # within the histogram's window
    width: int
    tables: Tables
    precision: int
    bits: float


def fit(q: I32, n_rows: int, rarest: tuple[int, ...] = RAREST) -> tuple[StaticModel, float]:
    """The model with which integers code shortest, and in how many bits.

    `q` is flat, not empty, in `n_rows` rows of equal length. `rarest` lists the counts up to which symbols at
    the tables' ends may become escapes.
    """
    lo, width = _window(q)
    best: tuple[float, StaticModel] | None = None
    for classes in _classifications(q, n_rows):
        counts = class_histograms(q, classes.rows, classes.columns, classes.n, (lo, width))
        candidates = [_levels(counts, rarest)]
        if classes.growth is not None:
            candidates.append(_formula(counts, lo, classes.growth, candidates[0]))
        for candidate in candidates:
            bits = candidate.bits + classes.bits
            if best is None or bits < best[0]:
                best = bits, classes.model(lo, candidate)
    assert best is not None  # all in one class is always tried
    return best[1], best[0]


def _classifications(q: I32, n_rows: int) -> Iterator[_Classes]:
    """Ways to tell rows and columns apart: not at all, by profile, by scale."""
    alike = np.zeros(n_rows, np.uint8)
    yield _Classes(alike, ALL_COLUMNS_ALIKE, 1, 0.0, growth=0 if q.size >= SMALLEST_CLUSTERED else None)
    labels, n_classes = _cluster(q, n_rows)
    if n_classes > 1:
        yield _Classes(labels, ALL_COLUMNS_ALIKE, n_classes, _label_bits(labels))
    if n_rows > 1 and q.size >= SMALLEST_CLUSTERED:
        yield from _scales(q, n_rows)


def _label_bits(labels: U8) -> float:
    return entropy_bits(np.bincount(labels)) + 10 * 8  # in a stream of their own


def _window(q: I32) -> tuple[int, int]:
    """A range of at most WIDEST_TABLE integers that holds the bulk of `q`."""
    lo, hi = int(q.min()), int(q.max())
    if hi - lo < WIDEST_TABLE:
        return lo, hi - lo + 1
    middle = int(np.median(q[:: max(1, q.size // 65536)]))
    lo = min(max(lo, middle - WIDEST_TABLE // 2), hi - WIDEST_TABLE + 1)
    return lo, WIDEST_TABLE


def _scales(q: I32, n_rows: int) -> Iterator[_Classes]:
    """Rows and columns by the logarithms of their mean magnitudes, in steps of which both take their due."""
    for by_columns in (True, False):
        rows, columns = _mean_logs(q, n_rows, by_columns)
        n_labels = n_rows + by_columns * columns.size
        growth = np.rint(16 * np.sqrt(n_labels / (MISMATCH * q.size)))
        low, high = (np.percentile(rows, [1, 99]) + np.percentile(columns, [1, 99])).tolist()
        growth = int(np.clip(max(growth, np.ceil(16 * (high - low) / (MOST_CLASSES - 1))), 1, 255))
        top = np.percentile(columns, 99)
        tops = np.clip(np.rint((rows + top - low) * 16 / growth), 0, MOST_CLASSES - 1).astype(np.uint8)
        n_classes = int(tops.max()) + 1
        if n_classes == 1:
            continue
        drops = ALL_COLUMNS_ALIKE
        if by_columns:
            drops = np.clip(np.rint((top - columns) * 16 / growth), 0, n_classes - 1).astype(np.uint8)
        bits = _label_bits(tops) + (_label_bits(drops) if by_columns else 0.0)
        yield _Classes(tops, drops, n_classes, bits, growth)


@kernel
def _mean_logs(q: I32, n_rows: int, by_columns: bool) -> tuple[F64, F64]:
    """log2 of rows' and columns' scales: each the mean of magnitudes that the other's are divided out of."""
    n_columns = q.size // n_rows
    rows, columns = np.zeros(n_rows), np.ones(n_columns)
    for again in range(2 if by_columns else 1):
        for row in range(n_rows):
            total = 0.0
            for column in range(n_columns):
                total += (abs(np.float64(q[row * n_columns + column])) + BELOW) * columns[column]
            rows[row] = n_columns / total
        if by_columns and not again:
            columns[:] = 0
            for row in range(n_rows):
                for column in range(n_columns):
                    columns[column] += (abs(np.float64(q[row * n_columns + column])) + BELOW) * rows[row]
            columns[:] = n_rows / columns
    return -np.log2(rows), -np.log2(columns)


def _formula(counts: I64, lo: int, growth: int, levels: _Candidate) -> _Candidate:
    """The cheapest formula for `counts`, in the range that the levels have."""
    first, last = levels.first, levels.first + levels.width
    inside = counts[:, first:last]
    escaped = counts.sum(1) - inside.sum(1)
    trimmed = np.column_stack([inside, escaped])
    magnitudes = np.abs(np.arange(lo + first, lo + last)).astype(np.float64)
    used = np.flatnonzero(trimmed.sum(1))
    middle = used[np.argmax(trimmed[used].sum(1))]
    mean = (inside[middle] * magnitudes).sum() / max(1, inside[middle].sum())
    scale = int(np.rint(16 * np.log2(mean + 0.1))) - growth * int(middle)
    exponent, scale = _best_shape(inside, magnitudes, growth, scale)
    found = Formula(exponent, int(np.clip(scale, -1024, 1024)), growth, 0, np.zeros(len(counts), np.int64))
    found = _with_spikes(found, trimmed, lo + first)
    bits, precision = min(
        (_table_bits(trimmed, found, lo + first, precision), precision) for precision in PRECISIONS
    )
    bits += 8 * 5 + _escape_bits(counts, first, last)
    return _Candidate(first, levels.width, found, precision, bits)


@kernel
def _best_shape(counts: I64, magnitudes: F64, growth: int, scale: int) -> tuple[int, int]:
    """The exponent and scale, in eighths and sixteenths, with which all but zeros cost least."""
    exponent = FIRST_EXPONENT
    bits, scale = _best_scale(counts, magnitudes, growth, exponent, scale)
    for by in (2, -2):
        while 0 < exponent + by <= LAST_EXPONENT:
            there, at = _best_scale(counts, magnitudes, growth, exponent + by, scale)
            if there >= bits:
                break
            bits, scale, exponent = there, at, exponent + by
    return exponent, scale


@kernel
def _best_scale(counts: I64, magnitudes: F64, growth: int, exponent: int, scale: int) -> tuple[float, int]:
    """The fewest bits, and the scale that takes them."""
    bits = shape_bits(counts, magnitudes, growth, exponent, scale)
    for stride in (8, 4, 2, 1):
        for by in (stride, -stride):
            for _ in range(MOST_MOVES):
                there = shape_bits(counts, magnitudes, growth, exponent, scale + by)
                if there >= bits:
                    break
                bits, scale = there, scale + by
    return bits, scale


@kernel
def shape_bits(counts: I64, magnitudes: F64, growth: int, exponent: int, scale: int) -> float:
    """What the counts of all magnitudes but zero cost under a formula, in bits, apart from its rounding."""
    bits = 0.0
    powers = np.zeros(magnitudes.size)
    for i in range(magnitudes.size):
        powers[i] = magnitudes[i] ** (exponent / 8)
    for c in range(counts.shape[0]):
        shrink = 2.0 ** (-exponent / 8 * (scale + growth * c) / 16)
        total, mass = 0, 0.0
        for i in range(magnitudes.size):
            if magnitudes[i] > 0:
                total += counts[c, i]
                mass += 2.0 ** -min(powers[i] * shrink, 30.0)
                bits += counts[c, i] * min(powers[i] * shrink, 30.0)
        bits += total * np.log2(max(mass, 1e-12))
    return bits


def _with_spikes(found: Formula, counts: I64, lo: int) -> Formula:
    """With zeros, and the escape, as frequent as they are."""
    width = counts.shape[1] - 1
    weights = found.weights(lo, width).astype(np.float64)
    zero = -lo if 0 <= -lo < width else None
    others = weights.sum(1) - (weights[:, zero] if zero is not None else 0)
    total = counts.sum(1)
    spikes = np.zeros(len(counts), np.int64)
    if zero is not None:
        zeros = counts[:, zero]
        weight = np.maximum(others, 1) * (zeros + 0.1) / (total - zeros + 0.1)
        spikes = np.rint(8 * (np.log2(weight) - PEAK)).astype(np.int64)
        spikes = np.clip(spikes, -tables.MOST_SPIKE, tables.MOST_SPIKE)
        spikes[total == 0] = 0
        others = replace(found, spikes=spikes).weights(lo, width).astype(np.float64).sum(1)
    escape, escaped = 0, counts[:, -1].sum()
    if escaped:
        share = escaped / max(1, total.sum())
        usual = float((others * total).sum() / max(1, total.sum()))
        escape = int(np.clip(np.rint(8 * np.log2(share * usual + 1)), 1, tables.MOST_ESCAPE))
    return replace(found, spikes=spikes, escape=escape)


def entropy_bits(counts: I64) -> float:
    """The ideal length of what was counted, under its own frequencies."""
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def _levels(counts: I64, rarest: tuple[int, ...]) -> _Candidate:
    """The cheapest levels for `counts` (classes, window + 1)."""
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
    span = (best.first, best.first + best.width)
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
    for c, row in enumerate(trimmed):
        levels_for(row, resolution, precision, levels[c])
    found = Levels(levels, resolution)
    bits = _table_bits(trimmed, found, first, precision) + _escape_bits(counts, first, last)
    return _Candidate(first, last - first, found, precision, bits)


def _table_bits(counts: I64, found: Tables, lo: int, precision: int) -> float:
    """Of coding `counts` (classes, width + 1) with the tables, and of the tables."""
    frequencies = tables.frequencies(found.weights(lo, counts.shape[1] - 1), precision)
    codes = found.codes()
    return code_bits(counts, frequencies, precision) + rice_bits(codes, best_rice_order(codes))


@kernel
def levels_for(counts: I64, resolution: int, precision: int, levels: I64) -> None:
    """Fill one table's `levels` for `counts`."""
    total = 0
    for c in counts:
        total += c
    for i in range(counts.size):
        levels[i] = 0
        if counts[i] > 0:
            log2_frequency = precision + np.log2(counts[i] / total)
            levels[i] = 1 + max(0, int(np.rint(resolution * log2_frequency)))
    if total == 0:  # a class without rows still needs a valid table
        levels[0] = 1


@kernel
def code_bits(counts: I64, frequencies: I64, precision: int) -> float:
    """The ideal length of coding `counts` (classes, symbols); infinite if one cannot be."""
    bits = 0.0
    for c in range(counts.shape[0]):
        for i in range(counts.shape[1]):
            if counts[c, i] > 0:
                if frequencies[c, i] == 0:
                    return np.inf
                bits += counts[c, i] * (precision - np.log2(frequencies[c, i]))
    return bits


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
    if most < 2 or q.size < SMALLEST_CLUSTERED:
        return np.zeros(n_rows, np.uint8), 1
    magnitudes = np.arange(1 << 12)
    bucket = np.minimum(
        np.where(magnitudes < 4, magnitudes, 2 * np.log2(np.maximum(magnitudes, 1))), N_BUCKETS - 1
    )
    profiles = _profiles(q, n_rows, bucket.astype(np.uint8))
    order = np.argsort(profiles @ np.arange(N_BUCKETS), kind="stable")
    sample = np.abs(q[:: max(1, q.size // 65536)].astype(np.int64))
    n_symbols = 2 * np.count_nonzero(np.bincount(np.minimum(sample, 255)))
    best_bits, best_class = entropy_bits(profiles.sum(0)) + 4 * n_symbols, None
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
