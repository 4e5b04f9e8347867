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
from laconic.quantization.grid import Quantizer
from laconic.surgery.plan import Plan
from laconic.surgery.shrink import shrink
from laconic.tensors import tensors


@dataclass(frozen=True)
class Stage:
    """A network at one point of its compression, as its file decodes.

    Attributes:
        name: what was done, such as ``dense`` or ``90% pruned``.
        sparsity: the fraction of the dense network's compressible weights that are zero or cut away.
        n_active: parameters that are not zero.
        accuracy: the fraction of test cases that it gets right.
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
    quantizer: Quantizer | None,
    plan: Plan | None = None,
) -> Stage:
    """Save `model` to `path`, decode the file, and measure what was decoded; `model` is unchanged.

    With a plan, what is saved is the model that it cuts; `model` has zeros where that is smaller.
    """
    file_bytes = save(shrink(model, plan) if plan else model, path, quantizer, plan=plan)
    ledger = describe(path, data.train.batches(4096), into=model)
    decoded = load(path, into=copy.deepcopy(model))
    n_left = _n_nonzero(tensors(decoded).values())
    return Stage(
        name,
        1 - n_left / sum(weight.numel() for weight in tensors(model).values()),
        _n_nonzero(decoded.parameters()),
        evaluate(decoded, data.test.batches(4096)).accuracy,
        file_bytes,
        ledger,
    )


def _n_nonzero(parameters: Iterable[Tensor]) -> int:
    return sum(int(parameter.count_nonzero()) for parameter in parameters)
