"""The k largest of n, exactly, without sorting.

A radix selection reads the scores' bits as integers, counts the leading 16 bits, then the next 16 of those at
the boundary, and so knows the k-th score exactly. For float32 that is three passes in chunks, whatever n,
with no copy of the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Shaped

CHUNK = 1 << 20  # elements looked at together: small enough for a cache
DIGIT_BITS = 16


def largest(scores: Sequence[torch.Tensor], k: int) -> list[torch.Tensor]:
    """Booleans for the `k` largest of all flat `scores` together; of equals, those of lower index."""
    n = sum(score.numel() for score in scores)
    if k in (0, n):
        return [torch.full_like(score, k == n and n > 0, dtype=torch.bool) for score in scores]
    threshold, ties = _kth_largest([chunk for s in scores for chunk in s.split(CHUNK)], k)
    return [_mark(score, threshold, ties) for score in scores]


@dataclass
class _Ties:
    """How many scores equal to the threshold may still stay."""

    left: int


def largest_of_rows(table: Shaped[torch.Tensor, "rows n"], k: int) -> Bool[torch.Tensor, "rows n"]:
    """Booleans for the `k` largest of each row; of equals, those of lower index."""
    order = table.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(table, dtype=torch.bool).scatter_(1, order, True)


def _mark(score: Shaped[torch.Tensor, " n"], threshold: float, ties: _Ties) -> Bool[torch.Tensor, " n"]:
    kept = torch.empty_like(score, dtype=torch.bool)
    for chunk, out in zip(score.split(CHUNK), kept.split(CHUNK), strict=True):
        torch.gt(chunk, threshold, out=out)
        if ties.left and (equal := chunk == threshold).any():
            first = equal.nonzero().squeeze(1)[: ties.left]
            out[first] = True
            ties.left -= len(first)
    return kept


def _kth_largest(chunks: Sequence[torch.Tensor], k: int) -> tuple[float, _Ties]:
    """The k-th largest value, and how many of its equals belong to the k largest."""
    wide = max(64 if chunk.dtype == torch.float64 else 32 for chunk in chunks)
    prefix = None
    for shift in range(wide - DIGIT_BITS, -1, -DIGIT_BITS):
        counts = torch.zeros(1 << DIGIT_BITS, dtype=torch.int64)
        for chunk in chunks:
            key = _ordered(chunk, wide)
            if prefix is not None:
                key = key[key >> (shift + DIGIT_BITS) == prefix]
            digit = (key >> shift) & ((1 << DIGIT_BITS) - 1)
            counts += torch.bincount(digit, minlength=1 << DIGIT_BITS).cpu()
        # The leading digit is signed: rotating by half puts negative scores below positive ones.
        order = torch.arange(1 << DIGIT_BITS)
        if prefix is None:
            order = order.roll(1 << (DIGIT_BITS - 1))
        from_top = counts[order].flip(0).cumsum(0)
        place = int(torch.searchsorted(from_top, k))
        digit = int(order.flip(0)[place])
        k -= int(from_top[place - 1]) if place else 0
        if prefix is None:
            prefix = digit - (1 << DIGIT_BITS if digit >= 1 << (DIGIT_BITS - 1) else 0)
        else:
            prefix = prefix << DIGIT_BITS | digit
    return _value(prefix or 0, wide), _Ties(k)


def _ordered(values: torch.Tensor, wide: int) -> torch.Tensor:
    """Signed integers of `wide` bits in the order of the floats; −0 is 0."""
    floats = values.to(torch.float64 if wide == 64 else torch.float32)
    magnitude = (1 << (wide - 1)) - 1
    integer = torch.int64 if wide == 64 else torch.int32
    if not floats.numel() or floats.min() >= 0:  # most criteria are not negative: one operation instead of five
        return floats.view(integer) & magnitude
    bits = (floats + 0.0).view(integer)
    return bits ^ ((bits >> (wide - 1)) & magnitude)


def _value(key: int, wide: int) -> float:
    """The float of an ordered integer."""
    integer, real = (torch.int64, torch.float64) if wide == 64 else (torch.int32, torch.float32)
    key = key ^ ((key >> (wide - 1)) & ((1 << (wide - 1)) - 1))
    return float(torch.tensor(key, dtype=integer).view(real))
