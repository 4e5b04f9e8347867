"""The data's bits: those that send the targets to someone who has the inputs and the network.

A code built on the network's predictions p(y|x) spends −log2 p(y|x) bits on a target y (Shannon); an arithmetic coder
reaches the sum to within two bits.
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

from laconic.model.modules import device_of, eval_mode

Nats: TypeAlias = Callable[[Tensor, Tensor], Tensor]

CLASS_LABELS: Nats = partial(F.cross_entropy, reduction="sum")


@dataclass(frozen=True)
class DataCode:
    """How well a network predicts some examples.

    Attributes:
        n_examples: number of examples.
        bits: Σ −log2 p(target | input).
        n_right: number of examples whose most probable class is right; 0 if targets are no classes.
    """

    n_examples: int
    bits: float
    n_right: int

    @property
    def accuracy(self) -> float:
        """The fraction of examples whose most probable class is right."""
        return self.n_right / self.n_examples if self.n_examples else math.nan


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], nats: Nats = CLASS_LABELS) -> DataCode:
    """Code the targets of `batches` with the model's predictions; the mode of each module is restored.

    Args:
        model: on its own device; inputs are moved there.
        batches: pairs (inputs, targets).
        nats: from outputs (as float64) and targets, Σ −ln p; by default for logits and class labels.
    """
    device = device_of(model)
    n_examples, total_nats, n_right = 0, 0.0, 0
    with eval_mode(model):
        for inputs, targets in batches:
            outputs, expected = model(inputs.to(device)).double(), targets.to(device)
            total_nats += float(nats(outputs, expected))
            if outputs.ndim == expected.ndim + 1:
                n_right += int((outputs.argmax(1) == expected).sum())
            n_examples += len(expected)
    return DataCode(n_examples, total_nats / math.log(2), n_right)
