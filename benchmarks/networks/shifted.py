"""Training images shifted at random, and flipped if asked for: what benchmarks train on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from laconic.datasets import Split


@dataclass(frozen=True)
class Shifted:
    """Shuffled batches (examples, channels, rows, columns), each image shifted by up to `pixels` either way.

    Attributes:
        fill: what comes in at the edges.
    """

    data: Split
    batch: int
    pixels: int
    flips: bool = False
    fill: float = 0.0

    def __len__(self) -> int:
        return math.ceil(len(self.data) / self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        height, width = self.data.inputs.shape[2:]
        for chosen in torch.randperm(len(self.data)).split(self.batch):
            images = F.pad(self.data.inputs[chosen], 4 * (self.pixels,), value=self.fill)
            n = len(chosen)
            rows = torch.randint(2 * self.pixels + 1, (n, 1)) + torch.arange(height)
            columns = torch.randint(2 * self.pixels + 1, (n, 1)) + torch.arange(width)
            if self.flips:
                columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
            at = torch.arange(n)[:, None, None]
            shifted = images.movedim(1, 3)[at, rows[:, :, None], columns[:, None, :]]
            yield shifted.movedim(3, 1), self.data.targets[chosen]
