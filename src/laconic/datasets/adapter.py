"""The examples to train and to test on: a data set, or batches as any loop has them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from typing_extensions import override

from laconic.core.text import kind
from laconic.datasets.standard import Dataset, Split
from laconic.errors import MismatchError
from laconic.model.modules import n_examples, sliced
from laconic.model.objective import check_batches

Batch: TypeAlias = Any  # see `laconic.model.Objective`


@runtime_checkable
class Batches(Protocol):
    """Examples, in batches."""

    def batches(self, batch_size: int | None = None, shuffle: bool = False) -> Iterable[Batch]:
        """The examples, once through."""
        ...


Source: TypeAlias = Split | Iterable[Batch]
Data: TypeAlias = Dataset | tuple[Source, Source]
AT_ONCE = 256  # examples of a batch that is observed


@dataclass(frozen=True, eq=False)
class AsTheyCome(Batches):
    """A user's batches, in their own size and order."""

    source: Iterable[Batch]

    @override
    def batches(self, batch_size: int | None = None, shuffle: bool = False) -> Iterable[Batch]:
        del batch_size, shuffle
        return self.source


@dataclass(frozen=True, eq=False)
class TrainTest:
    """The examples to train on, and those to test on."""

    train: Batches
    test: Batches

    @classmethod
    def of(cls, data: Data) -> TrainTest:
        """From a data set, or a pair of splits or iterables of batches.

        Raises:
            MismatchError: the data are neither, or the batches come only once or are no batches.
        """
        if isinstance(data, Dataset):
            return cls(data.train, data.test)
        if not isinstance(data, tuple) or len(data) != 2:
            raise MismatchError(f"data: expected a Dataset or a pair (train, test), found {kind(data)}")
        return cls(_batches("training", data[0]), _batches("test", data[1]))

    def first(self, n: int, seed: int) -> list[Batch]:
        """Batches of the first `n` training examples; the seed decides which, if they come shuffled."""
        found: list[Batch] = []
        with seeded(seed):
            for batch in self.train.batches(AT_ONCE):
                found.append(sliced(batch, slice(n)))
                n -= n_examples(batch) or 1
                if n <= 0:
                    break
        return found

    def counts(self, batch_size: int | None) -> tuple[int, int]:
        """Numbers of training examples and of batches in an epoch."""
        with seeded(0):
            sizes = [n_examples(batch) or 1 for batch in self.train.batches(batch_size)]
        return sum(sizes), len(sizes)


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """PyTorch is seeded in the block, and restored afterwards, since iterating a loader draws."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _batches(name: str, source: Any) -> Batches:
    if isinstance(source, Split):
        return source
    check_batches(source, f"{name} data")
    with seeded(0):
        batch: Any = next(iter(source), None)
    if not isinstance(batch, Mapping) and not (isinstance(batch, (tuple, list)) and len(batch) > 1):
        expected = "expected batches (inputs, targets), or mappings with labels"
        raise MismatchError(f"{name} data: {expected}, found {kind(batch)}")
    return AsTheyCome(source)
