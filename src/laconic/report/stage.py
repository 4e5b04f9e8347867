"""One line of an account of compression: a network, its file, and how well the file does."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from laconic.description.data_code import evaluate
from laconic.description.describe import describe
from laconic.description.ledger import Ledger
from laconic.file.state import load, save
from laconic.quantization.grid import Grid
from laconic.surgery.plan import Plan
from laconic.surgery.shrink import shrink
from laconic.tensors import sparsity


@dataclass(frozen=True)
class Stage:
    """A network at one point of its compression.

    Attributes:
        name: what was done, such as ``dense`` or ``90% pruned``.
        sparsity: the fraction of the compressed tensors' weights that are zero.
        n_active: parameters that are not zero, of the whole model.
        accuracy: the fraction of test cases that the *decoded file* gets right.
        file_bytes: the file's length.
        ledger: where its bits went, with the training data's.
    """

    name: str
    sparsity: float
    n_active: int
    accuracy: float
    file_bytes: int
    ledger: Ledger


class Batches(Protocol):
    """Cases, in batches."""

    def batches(self, batch_size: int | None = None, shuffle: bool = False) -> Iterable[tuple[Any, Tensor]]:
        """Pairs (inputs, targets), once through."""
        ...


class Cases(Protocol):
    """Cases to learn from and to be judged by, such as a `laconic.datasets.Dataset`."""

    @property
    def train(self) -> Batches:
        """The cases to learn from."""
        ...

    @property
    def test(self) -> Batches:
        """The cases to be judged by."""
        ...


def measure(
    name: str,
    model: nn.Module,
    path: str | os.PathLike[str],
    data: Cases,
    quantizer: Grid | None,
    plan: Plan | None = None,
) -> Stage:
    """Save `model` to `path`, decode the file, and measure what was decoded; `model` is unchanged.

    With a plan, what is saved is the model that it cuts; `model` has zeros where that is smaller.
    """
    file_bytes = save(shrink(model, plan) if plan else model, path, quantizer, plan=plan)
    ledger = describe(path, data.train.batches(4096), into=model)
    decoded = load(path, into=copy.deepcopy(model))
    return Stage(
        name,
        sparsity(model),
        sum(int(parameter.count_nonzero()) for parameter in model.parameters()),
        evaluate(decoded, data.test.batches(4096)).accuracy,
        file_bytes,
        ledger,
    )
