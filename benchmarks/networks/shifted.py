"""Training images shifted at random, and flipped if asked for: what benchmarks train on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.datasets import Split


@dataclass(frozen=True)
class Shifted:
    """Shuffled batches (examples, channels, rows, columns), each image shifted by up to `pixels` either way.

    Attributes:
        fill: what comes in at the edges, a value for each channel. Images padded before they are normalised have black
            edges (`laconic.datasets.Dataset.black`); zeros are the mean colour.
    """

    data: Split
    batch: int
    pixels: int
    fill: tuple[float, ...]
    flips: bool = False

    def __len__(self) -> int:
        return math.ceil(len(self.data) / self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        channels, height, width = self.data.inputs.shape[1:]
        edges = self.data.inputs.new_tensor(self.fill).expand(channels)[:, None, None]
        for chosen in torch.randperm(len(self.data)).split(self.batch):
            n, first = len(chosen), self.pixels
            images = edges.repeat(n, 1, height + 2 * first, width + 2 * first)
            images[:, :, first : first + height, first : first + width] = self.data.inputs[chosen]
            rows = torch.randint(2 * self.pixels + 1, (n, 1)) + torch.arange(height)
            columns = torch.randint(2 * self.pixels + 1, (n, 1)) + torch.arange(width)
            if self.flips:
                columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
            at = torch.arange(n)[:, None, None]
            shifted = images.movedim(1, 3)[at, rows[:, :, None], columns[:, None, :]]
            yield shifted.movedim(3, 1), self.data.targets[chosen]
