"""Fitting a static model: the range of the tables, the classes, the tables' kind and resolution.

Every choice is made by the same sum, in bits: symbols under the rounded tables + tables + escapes + the
labels. Rows, or rows and columns, are labelled by the logarithm of their mean magnitude, so that classes are
scales: the class of a weight is its row's less its column's. Which of these ways to tell weights apart is
best shows on a sample of the rows; all else is counted in full.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from laconic.coding import tables
from laconic.coding.bitio import best_rice_order, rice_bits
from laconic.coding.layout import Layout
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, MAX_CLASSES, PRECISIONS, StaticModel, class_histograms
from laconic.coding.tables import PEAK, RESOLUTIONS, Formula, Levels, Tables
from laconic.core.jit import F64, I32, I64, U8, kernel

MAX_TABLE_WIDTH = 2048
SAMPLE = 1 << 17  # integers, about, on which classes are compared
MIN_CLASSIFIED_INTEGERS = 512  # integers
BELOW = 0.3  # a magnitude that integers cannot tell from zero
MISMATCH = 0.053  # 2 ln 2 times the bits a weight that a scale wrong by an octave costs, measured
FIRST_EXPONENT, LAST_EXPONENT = 12, 32  # of a formula, in eighths
MAX_MOVES = 12
RAREST = (0, 1, 2, 4, 8, 16, 32)  # symbols seen no more often than this may leave the table's ends


@dataclass(frozen=True)
class _Classes:
    """A class for each row, a drop for each column, and what saying so takes."""

    rows: U8
    columns: U8
    n: int
    bits: float
    growth: int  # of scales, in sixteenths of an octave from class to class

    def model(self, lo: int, candidate: _Candidate) -> StaticModel:
        return StaticModel(
            lo + candidate.first, candidate.width, candidate.tables, candidate.precision, self.rows, self.columns
        )


@dataclass(frozen=True)
class _Candidate:
    """Tables for one range and rounding, and what everything costs with them, in bits."""

    first: int  # within the histogram's window
    width: int
    tables: Tables
    precision: int
    bits: float


def fit(q: I32, layout: Layout, rarest: tuple[int, ...] = RAREST) -> tuple[StaticModel, float]:
    """The model with which the flat integers `q`, one at least, code shortest, and in how many bits.

    `rarest` lists the counts up to which symbols at the tables' ends may become escapes.
    """
    n_rows = layout.n_rows
    lo, width = _window(q)
    every = -(-q.size // SAMPLE) if n_rows > 1 else 1
    sample = q.reshape(n_rows, -1)[::every].ravel()

    def estimate(classes: _Classes) -> float:
        counts = class_histograms(sample, classes.rows[::every], classes.columns, classes.n, (lo, width))
        counts *= every
        levels = _spanning(counts, (0, 8))
        return min(levels.bits, _formula(counts, lo, classes.growth, levels).bits) + classes.bits

    ways = list(_classifications(q, n_rows))
    classes = min(ways, key=estimate) if len(ways) > 1 else ways[0]
    counts = class_histograms(q, classes.rows, classes.columns, classes.n, (lo, width))
    levels = _levels(counts, rarest)
    best = min(levels, _formula(counts, lo, classes.growth, levels), key=lambda found: found.bits)
    return classes.model(lo, best), best.bits + classes.bits


def _classifications(q: I32, n_rows: int) -> Iterator[_Classes]:
    """Ways to tell rows and columns apart: not at all, by the scales of both, by those of rows."""
    yield _Classes(np.zeros(n_rows, np.uint8), ALL_COLUMNS_ALIKE, 1, 0.0, 0)
    if n_rows > 1 and q.size >= MIN_CLASSIFIED_INTEGERS:
        yield from _scales(q, n_rows)


def _label_bits(labels: U8) -> float:
    return entropy_bits(np.bincount(labels)) + 10 * 8  # in a stream of their own


def _window(q: I32) -> tuple[int, int]:
    """A range of at most MAX_TABLE_WIDTH integers that holds the bulk of `q`."""
    lo, hi = int(q.min()), int(q.max())
    if hi - lo < MAX_TABLE_WIDTH:
        return lo, hi - lo + 1
    middle = int(np.median(q[:: max(1, q.size // 65536)]))
    lo = min(max(lo, middle - MAX_TABLE_WIDTH // 2), hi - MAX_TABLE_WIDTH + 1)
    return lo, MAX_TABLE_WIDTH


def _scales(q: I32, n_rows: int) -> Iterator[_Classes]:
    """Rows and columns by the logarithms of their scales, in steps of which both take their due."""
    alone, *both = _log_scales(q, n_rows)
    for rows, columns in (both, (alone, np.zeros(0))):
        n_labels = n_rows + columns.size
        growth = np.rint(16 * np.sqrt(n_labels / (MISMATCH * q.size)))
        low, high = np.percentile(rows, [1, 99])
        top = 0.0
        if columns.size:
            bottom, top = np.percentile(columns, [1, 99])
            low, high = low + bottom, high + top
        growth = int(np.clip(max(growth, np.ceil(16 * (high - low) / (MAX_CLASSES - 1))), 1, 255))
        tops = np.clip(np.rint((rows + top - low) * 16 / growth), 0, MAX_CLASSES - 1).astype(np.uint8)
        n_classes = int(tops.max()) + 1
        if n_classes > 1:
            drops = np.clip(np.rint((top - columns) * 16 / growth), 0, n_classes - 1).astype(np.uint8)
            bits = _label_bits(tops) + (_label_bits(drops) if drops.size else 0.0)
            yield _Classes(tops, drops, n_classes, bits, growth)


@kernel
def _log_scales(q: I32, n_rows: int) -> tuple[F64, F64, F64]:
    """log2 of the scales of rows alone, of rows beside columns, and of columns.

    Each is the mean of magnitudes that the other's are divided out of.
    """
    n_columns = q.size // n_rows
    alone, rows, columns = np.zeros(n_rows), np.zeros(n_rows), np.zeros(n_columns)
    for row in range(n_rows):
        total = 0.0
        for column in range(n_columns):
            total += abs(np.float64(q[row * n_columns + column])) + BELOW
        alone[row] = total / n_columns
        for column in range(n_columns):
            columns[column] += (abs(np.float64(q[row * n_columns + column])) + BELOW) / alone[row]
    columns /= n_rows
    inverse = 1 / columns
    for row in range(n_rows):
        for column in range(n_columns):
            rows[row] += (abs(np.float64(q[row * n_columns + column])) + BELOW) * inverse[column]
    return np.log2(alone), np.log2(rows / n_columns), np.log2(columns)


def _formula(counts: I64, lo: int, growth: int, levels: _Candidate) -> _Candidate:
    """The cheapest formula for `counts`, in the range that the levels have."""
    first, last = levels.first, levels.first + levels.width
    trimmed = _trimmed(counts, first, last)
    inside = trimmed[:, :-1]
    magnitudes = np.abs(np.arange(lo + first, lo + last)).astype(np.float64)
    used = np.flatnonzero(trimmed.sum(1))
    middle = used[np.argmax(trimmed[used].sum(1))]
    mean = (inside[middle] * magnitudes).sum() / max(1, inside[middle].sum())
    scale = int(np.rint(16 * np.log2(mean + 0.1))) - growth * int(middle)
    exponent, scale = _best_shape(inside, magnitudes, growth, scale)
    found = Formula(exponent, int(np.clip(scale, -1024, 1024)), growth, 0, np.zeros(len(counts), np.int64))
    found = _with_spikes(found, trimmed, lo + first)
    beside = 8 * 5 + _escape_bits(counts, first, last)

    def at(precision: int) -> _Candidate:
        bits = _table_bits(trimmed, found, lo + first, precision) + beside
        return _Candidate(first, levels.width, found, precision, bits)

    return _cheapest(map(at, PRECISIONS))


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
    powers = magnitudes ** (exponent / 8)
    bits = _shape_bits(counts, powers, growth, exponent, scale)
    for stride in (8, 4, 2, 1):
        for by in (stride, -stride):
            for _ in range(MAX_MOVES):
                there = _shape_bits(counts, powers, growth, exponent, scale + by)
                if there >= bits:
                    break
                bits, scale = there, scale + by
    return bits, scale


@kernel
def _shape_bits(counts: I64, powers: F64, growth: int, exponent: int, scale: int) -> float:
    """What the counts of all magnitudes but zero cost under a formula, in bits, apart from its rounding."""
    bits = 0.0
    for c in range(counts.shape[0]):
        shrink = 2.0 ** (-exponent / 8 * (scale + growth * c) / 16)
        total, mass = 0, 0.0
        for i in range(powers.size):
            if powers[i] > 0:
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
        spikes = np.clip(spikes, -tables.MAX_SPIKE, tables.MAX_SPIKE)
        spikes[total == 0] = 0
        others = replace(found, spikes=spikes).weights(lo, width).astype(np.float64).sum(1)
    escape, escaped = 0, counts[:, -1].sum()
    if escaped:
        share = escaped / max(1, total.sum())
        usual = float((others * total).sum() / max(1, total.sum()))
        escape = int(np.clip(np.rint(8 * np.log2(share * usual + 1)), 1, tables.MAX_ESCAPE))
    return replace(found, spikes=spikes, escape=escape)


def entropy_bits(counts: I64) -> float:
    """The ideal length of what was counted, under its own frequencies."""
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def _levels(counts: I64, rarest: tuple[int, ...]) -> _Candidate:
    """The cheapest levels for `counts` (classes, window + 1)."""
    best = _spanning(counts, rarest)
    span, finest = (best.first, best.first + best.width), PRECISIONS[-1]
    by_resolution = {resolution: _cost(counts, span, resolution, finest) for resolution in RESOLUTIONS}
    chosen = min(by_resolution, key=lambda resolution: by_resolution[resolution].bits)
    others = [_cost(counts, span, chosen, precision) for precision in PRECISIONS[:-1]]
    best = _cheapest([*others, by_resolution[chosen]])
    # Rounding up may overfill tables that are wide and flat; of one integer, all others escapes, never.
    return best if best.bits < math.inf else _cost(counts, (0, 1), 1, PRECISIONS[0])


def _cheapest(candidates: Iterable[_Candidate]) -> _Candidate:
    """By bits; but tables of less precision decode from a smaller cache, so more must save a thousandth."""
    return min(candidates, key=lambda found: found.bits * (1.0 if found.precision == PRECISIONS[0] else 1.001))


def _spanning(counts: I64, rarest: tuple[int, ...]) -> _Candidate:
    """Levels in the cheapest range, apart from how they are rounded."""
    width = counts.shape[1] - 1
    total = counts.sum(0)
    spans = dict[tuple[int, int], None]()
    for rare in rarest:
        frequent = np.flatnonzero(total[:width] > rare)
        if frequent.size:
            spans[int(frequent[0]), int(frequent[-1]) + 1] = None
    if not spans:  # everything lies outside the window: one escape's table
        return _cost(counts, (0, 1), 1, PRECISIONS[0])
    return min((_cost(counts, span, 2, PRECISIONS[-1]) for span in spans), key=lambda found: found.bits)


def _cost(counts: I64, span: tuple[int, int], resolution: int, precision: int) -> _Candidate:
    first, last = span
    trimmed = _trimmed(counts, first, last)
    found = Levels(levels_for(trimmed, resolution, precision), resolution)
    bits = _table_bits(trimmed, found, first, precision) + _escape_bits(counts, first, last)
    return _Candidate(first, last - first, found, precision, bits)


def _table_bits(counts: I64, found: Tables, lo: int, precision: int) -> float:
    """Of coding `counts` (classes, width + 1) with the tables, and of the tables; infinite if one is invalid.

    That is so for a class that nothing is in, too: a reader takes no file with such a table.
    """
    frequencies = tables.frequencies(found.weights(lo, counts.shape[1] - 1), precision)
    if not tables.are_valid(frequencies):
        return math.inf
    codes = found.codes()
    return code_bits(counts, frequencies, precision) + rice_bits(codes, best_rice_order(codes))


@kernel
def _trimmed(counts: I64, first: int, last: int) -> I64:
    """The counts (classes, symbols) from `first` to `last`, and in one more column all others."""
    trimmed = np.zeros((counts.shape[0], last - first + 1), np.int64)
    for c in range(counts.shape[0]):
        for i in range(counts.shape[1]):
            trimmed[c, i - first if first <= i < last else last - first] += counts[c, i]
    return trimmed


@kernel
def levels_for(counts: I64, resolution: int, precision: int) -> I64:
    """The levels of tables for `counts` (classes, symbols)."""
    levels = np.zeros(counts.shape, np.int64)
    for c in range(counts.shape[0]):
        total = counts[c].sum()
        for i in range(counts.shape[1]):
            if counts[c, i] > 0:
                log2_frequency = precision + np.log2(counts[c, i] / total)
                levels[c, i] = 1 + max(0, int(np.rint(resolution * log2_frequency)))
        if total == 0:  # a class without rows still needs a valid table
            levels[c, 0] = 1
    return levels


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
        total += counts[c, width] * 2 * np.log2(MAX_TABLE_WIDTH)
    return total
