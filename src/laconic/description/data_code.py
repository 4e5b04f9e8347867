"""The data's bits: what it takes to send the targets to someone who has the inputs and the network.

A code built on the network's predictions p(y|x) spends −log2 p(y|x) bits on a target y (Shannon);
an arithmetic coder reaches the sum to within two bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Nats: TypeAlias = Callable[[Tensor, Tensor], Tensor]

CLASS_LABELS: Nats = partial(F.cross_entropy, reduction="sum")


@dataclass(frozen=True)
class DataCode:
    """How well a network predicts some cases.

    Attributes:
        n_cases: how many there are.
        bits: Σ −log2 p(target | input).
        n_right: how many the most probable class was right for (0 where targets are no classes).
    """

    n_cases: int
    bits: float
    n_right: int

    @property
    def accuracy(self) -> float:
        """The fraction of cases that were right."""
        return self.n_right / self.n_cases if self.n_cases else math.nan


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], nats: Nats = CLASS_LABELS
) -> DataCode:
    """Code the targets of `batches` with the model's predictions; the model's mode is restored.

    Args:
        model: on its own device; inputs are moved there.
        batches: pairs (inputs, targets).
        nats: from outputs (as float64) and targets, Σ −ln p; by default for logits and class labels.
    """
    was_training = model.training
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    n_cases, total_nats, n_right = 0, 0.0, 0
    for inputs, targets in batches:
        outputs, expected = model(inputs.to(device)).double(), targets.to(device)
        total_nats += float(nats(outputs, expected))
        if outputs.ndim == expected.ndim + 1:
            n_right += int((outputs.argmax(1) == expected).sum())
        n_cases += len(expected)
    model.train(was_training)
    return DataCode(n_cases, total_nats / math.log(2), n_right)
