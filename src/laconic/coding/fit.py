"""Fitting a static model: the range of the tables, the classes, the tables' kind and resolution.

Every choice is made by the same sum, in bits: symbols under the rounded tables + tables + escapes + labels. Rows, or
rows and columns, are labelled by the logarithm of their mean magnitude, so that classes are scales: the class of a
weight is its row's less its column's. A sample of the rows shows which of these classifications is best; all else is
counted in full.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from laconic.coding import static_model
from laconic.coding.bitio import best_rice_order, rice_bits
from laconic.coding.layout import Layout
from laconic.coding.static_model import PRECISIONS, RESOLUTIONS, Formula, Levels, StaticModel, Tables, frequencies
from laconic.core.jit import F64, I32, I64, U8, kernel

MAX_TABLE_WIDTH = 2048
SAMPLE = 1 << 17  # integers, about, on which classes are compared
MIN_CLASSIFIED_INTEGERS = 512
BELOW = 0.3  # a magnitude that integers cannot tell from zero
MISMATCH = 0.053  # 2 ln 2 times the bits that a scale wrong by an octave costs a weight, measured
FIRST_EXPONENT, LAST_EXPONENT = 12, 32  # of a formula, in eighths
MAX_MOVES = 12
RAREST = (0, 1, 2, 4, 8, 16, 32)  # symbols seen no more often than this may leave the tables' ends


class _Classes(NamedTuple):
    """A class for each row, a drop for each column."""

    rows: U8
    columns: U8
    n: int
    bits: float  # of the labels
    growth: int  # of scales from class to class, in sixteenths of an octave


class _Candidate(NamedTuple):
    """Tables for one range and rounding."""

    first: int  # within the histogram's window
    width: int
    tables: Tables
    precision: int
    bits: float  # of everything but the labels


def fit(q: I32, layout: Layout, rarest: tuple[int, ...] = RAREST) -> tuple[StaticModel, float]:
    """The model that codes the flat integers `q`, one at least, shortest, and its bits.

    `rarest` lists the counts up to which symbols at the tables' ends may become escapes.
    """
    lo, width = _window(q)
    every = -(-q.size // SAMPLE) if layout.n_rows > 1 else 1
    sample = q.reshape(layout.n_rows, -1)[::every].ravel()

    def estimate(classes: _Classes) -> float:
        counts = _class_histograms(sample, classes.rows[::every], classes.columns, classes.n, (lo, width))
        counts *= every
        levels = _spanning(counts, (0, 8))
        return min(levels.bits, _formula(counts, lo, classes.growth, levels).bits) + classes.bits

    ways = list(_classifications(q, layout.n_rows))
    classes = min(ways, key=estimate) if len(ways) > 1 else ways[0]
    counts = _class_histograms(q, classes.rows, classes.columns, classes.n, (lo, width))
    levels = _levels(counts, rarest)
    best = min(levels, _formula(counts, lo, classes.growth, levels), key=lambda found: found.bits)
    model = StaticModel(lo + best.first, best.width, best.tables, best.precision, classes.rows, classes.columns)
    return model, best.bits + classes.bits


@kernel
def _class_histograms(q: I32, row_class: U8, column_drop: U8, n_classes: int, window: tuple[int, int]) -> I64:
    """Counts (classes, width + 1) of the window's lo, lo + 1, …; the last column counts all others."""
    lo, width = window
    counts = np.zeros((n_classes, width + 1), np.int64)
    n_columns = q.size // row_class.size
    for row in range(row_class.size):
        mine = counts[row_class[row]]
        for column in range(n_columns):
            s = np.int64(q[row * n_columns + column]) - lo
            if column_drop.size:
                mine = counts[max(np.int64(row_class[row]) - column_drop[column], 0)]
            mine[s if 0 <= s < width else width] += 1
    return counts


def _window(q: I32) -> tuple[int, int]:
    """A range of at most MAX_TABLE_WIDTH integers that holds the bulk of `q`: its first, and its width."""
    lo, hi = int(q.min()), int(q.max())
    if hi - lo < MAX_TABLE_WIDTH:
        return lo, hi - lo + 1
    middle = int(np.median(q[:: max(1, q.size // 65536)]))
    return min(max(lo, middle - MAX_TABLE_WIDTH // 2), hi - MAX_TABLE_WIDTH + 1), MAX_TABLE_WIDTH


def _classifications(q: I32, n_rows: int) -> Iterator[_Classes]:
    """One class for all; classes by the scales of rows and columns; by those of rows.

    A class spans as much of an octave as balances the labels' bits with those of wrong scales.
    """
    yield _Classes(np.zeros(n_rows, np.uint8), static_model.ALL_COLUMNS_ALIKE, 1, 0.0, 0)
    if n_rows == 1 or q.size < MIN_CLASSIFIED_INTEGERS:
        return
    alone, *both = _log_scales(q, n_rows)
    for rows, columns in (both, (alone, np.zeros(0))):
        growth = np.rint(16 * np.sqrt((n_rows + columns.size) / (MISMATCH * q.size)))
        low, high = np.percentile(rows, [1, 99])
        top = 0.0
        if columns.size:
            bottom, top = np.percentile(columns, [1, 99])
            low, high = low + bottom, high + top
        growth = int(np.clip(max(growth, np.ceil(16 * (high - low) / (static_model.MAX_CLASSES - 1))), 1, 255))
        tops = np.clip(np.rint((rows + top - low) * 16 / growth), 0, static_model.MAX_CLASSES - 1).astype(np.uint8)
        n_classes = int(tops.max()) + 1
        if n_classes > 1:
            drops = np.clip(np.rint((top - columns) * 16 / growth), 0, n_classes - 1).astype(np.uint8)
            bits = sum(entropy_bits(np.bincount(labels)) + 10 * 8 for labels in (tops, drops) if labels.size)
            yield _Classes(tops, drops, n_classes, bits, growth)


@kernel
def _log_scales(q: I32, n_rows: int) -> tuple[F64, F64, F64]:
    """log2 of the scales of rows alone, of rows beside columns, and of columns.

    Each of the last two is the mean of magnitudes divided by the other's scales.
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
    middle = int(trimmed.sum(1).argmax())
    mean = (inside[middle] * magnitudes).sum() / max(1, inside[middle].sum())
    scale = int(np.rint(16 * np.log2(mean + 0.1))) - growth * middle
    exponent, scale = _best_shape(inside, magnitudes, growth, scale)
    found = Formula(exponent, int(np.clip(scale, -1024, 1024)), growth, 0, np.zeros(len(counts), np.int64))
    found = _with_spikes(found, trimmed, lo + first)
    beside = 8 * 5 + _escape_bits(counts, first, last)
    bits = {precision: _table_bits(trimmed, found, lo + first, precision) + beside for precision in PRECISIONS}
    return _cheapest(_Candidate(first, levels.width, found, *of) for of in bits.items())


@kernel
def _best_shape(counts: I64, magnitudes: F64, growth: int, scale: int) -> tuple[int, int]:
    """The exponent, in eighths, and the scale, in sixteenths, under which all but zeros cost least."""
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
    """The fewest bits, and their scale."""
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
    """Bits of all magnitudes but zero under a formula before it is rounded."""
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
    """The formula with zeros, and the escape, as frequent as in `counts`."""
    width = counts.shape[1] - 1
    weights = found.weights(lo, width).astype(np.float64)
    others, total = weights.sum(1), counts.sum(1)
    spikes = found.spikes
    if 0 <= -lo < width:
        zeros = counts[:, -lo]
        weight = np.maximum(others - weights[:, -lo], 1) * (zeros + 0.1) / (total - zeros + 0.1)
        spikes = np.rint(8 * (np.log2(weight) - static_model.PEAK)).astype(np.int64)
        spikes = spikes.clip(-static_model.MAX_SPIKE, static_model.MAX_SPIKE)
        spikes[total == 0] = 0
        others = replace(found, spikes=spikes).weights(lo, width).astype(np.float64).sum(1)
    escape, escaped = 0, counts[:, -1].sum()
    if escaped:
        share = escaped / max(1, total.sum())
        usual = float((others * total).sum() / max(1, total.sum()))
        escape = int(np.clip(np.rint(8 * np.log2(share * usual + 1)), 1, static_model.MAX_ESCAPE))
    return replace(found, spikes=spikes, escape=escape)


def entropy_bits(counts: I64) -> float:
    """Ideal length of symbols with these counts, under their own frequencies."""
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
    # Rounding up may overfill tables that are wide and flat, but never that of one integer and the escape.
    return best if best.bits < math.inf else _cost(counts, (0, 1), 1, PRECISIONS[0])


def _cheapest(candidates: Iterable[_Candidate]) -> _Candidate:
    """The fewest bits; higher precision decodes from a larger cache, so it must save a thousandth."""
    return min(candidates, key=lambda found: found.bits * (1.0 if found.precision == PRECISIONS[0] else 1.001))


def _spanning(counts: I64, rarest: tuple[int, ...]) -> _Candidate:
    """Levels in the cheapest range, before their rounding is chosen."""
    total = counts.sum(0)[:-1]
    ends = [np.flatnonzero(total > rare)[[0, -1]].tolist() for rare in rarest if (total > rare).any()]
    if not ends:  # everything lies outside the window: one escape's table
        return _cost(counts, (0, 1), 1, PRECISIONS[0])
    spans = dict.fromkeys((first, last + 1) for first, last in ends)
    return min((_cost(counts, span, 2, PRECISIONS[-1]) for span in spans), key=lambda found: found.bits)


def _cost(counts: I64, span: tuple[int, int], resolution: int, precision: int) -> _Candidate:
    first, last = span
    trimmed = _trimmed(counts, first, last)
    found = Levels(levels_for(trimmed, resolution, precision), resolution)
    bits = _table_bits(trimmed, found, first, precision) + _escape_bits(counts, first, last)
    return _Candidate(first, last - first, found, precision, bits)


def _table_bits(counts: I64, found: Tables, lo: int, precision: int) -> float:
    """Bits of `counts` (classes, width + 1) under the tables, and of the tables.

    Infinite if a table is invalid, even that of a class without rows: a reader refuses such a file.
    """
    rounded = frequencies(found.weights(lo, counts.shape[1] - 1), precision)
    if not rounded.any(1).all():
        return math.inf
    codes = found.codes()
    return _code_bits(counts, rounded, precision) + rice_bits(codes, best_rice_order(codes))


def _trimmed(counts: I64, first: int, last: int) -> I64:
    """The counts (classes, symbols) from `first` up to `last`, and in one more column all others."""
    inside = counts[:, first:last]
    return np.column_stack([inside, counts.sum(1) - inside.sum(1)])


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
def _code_bits(counts: I64, frequencies: I64, precision: int) -> float:
    """Ideal length of coding `counts` (classes, symbols); infinite if a symbol has no frequency."""
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
    """Bits of the escapes' own codes, about twice the logarithm of their distance from the range."""
    total = 0.0
    width = counts.shape[1] - 1
    for c in range(counts.shape[0]):
        for i in range(first):
            total += counts[c, i] * (2 * np.log2(first - i) + 2)
        for i in range(last, width):
            total += counts[c, i] * (2 * np.log2(i - last + 1) + 2)
        total += counts[c, width] * 2 * np.log2(MAX_TABLE_WIDTH)
    return total
