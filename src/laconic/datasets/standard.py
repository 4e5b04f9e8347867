"""The public data of demos and benchmarks, whole in memory, as normalised tensors.

`blobs` and `digits` need no file. `mnist` and `cifar10` read the canonical files from the directory that
``LACONIC_DATA`` names; if it is not set, they are downloaded (see `laconic.datasets.files`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor
from torch.utils import data

from laconic.datasets.files import N_CLASSES, Source, checked_labels, located, read_idx, read_records
from laconic.errors import DataError

_MNIST_MD5S = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_MNIST = Source(
    "mnist",
    tuple(_MNIST_MD5S),
    {f"https://ossci-datasets.s3.amazonaws.com/mnist/{f}": md5 for f, md5 in _MNIST_MD5S.items()},
)
_CIFAR10 = Source(
    "cifar10",
    tuple(f"cifar-10-batches-bin/{batch}.bin" for batch in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")),
    {"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
)


@dataclass(frozen=True)
class _Normalisation:
    """What is subtracted from each channel, in [0, 1], and what the difference is divided by."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def black(self) -> tuple[float, ...]:
        return tuple(-mean / deviation for mean, deviation in zip(self.means, self.deviations, strict=True))


_OF_MNIST = _Normalisation((0.1307,), (0.3081,))
_OF_IMAGENET = _Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, eq=False)
class Split(data.Dataset[tuple[Tensor, Tensor]]):
    """Examples with their targets, along the first axis."""

    inputs: Shaped[Tensor, " examples *input_shape"]
    targets: Shaped[Tensor, " targets *target_shape"]

    def __post_init__(self):
        n_inputs, n_targets = len(self.inputs), len(self.targets)
        if n_inputs != n_targets:
            raise ValueError(f"targets: expected {n_inputs}, one for each input, found {n_targets}")

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        first, stop = indices[0], indices[0] + len(indices)
        if list(indices) == list(range(first, stop)):  # a run of examples is a view: nothing is copied
            return self.inputs[first:stop], self.targets[first:stop]
        chosen = torch.tensor(indices)
        return self.inputs[chosen], self.targets[chosen]

    def batches(self, batch_size: int | None = None, shuffle: bool = False) -> data.DataLoader[tuple[Tensor, Tensor]]:
        """A loader of (inputs, targets); the last batch holds the remainder.

        Args:
            batch_size: examples in a batch; None for all.
            shuffle: draw a new order from torch's global generator at every pass.
        """
        order = data.RandomSampler(self) if shuffle else data.SequentialSampler(self)
        sampler = data.BatchSampler(order, len(self) if batch_size is None else batch_size, drop_last=False)
        # A batch is one indexing of the whole, not a stack of examples.
        # Not `sampler=sampler, batch_size=None`: Accelerate fails to prepare such a loader.
        return data.DataLoader(self, batch_sampler=sampler, collate_fn=_as_is)


def _as_is(batch: Any) -> Any:
    return batch


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples to train on and examples to test on.

    Attributes:
        name: the name of the function that made it.
        n_classes: targets are the integers below it, from 0.
        black: what a black pixel is after the normalisation, a value for each channel: what comes in at the edges when
            images are shifted. Empty where inputs are not images.
    """

    name: str
    train: Split
    test: Split
    n_classes: int
    black: tuple[float, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.train.inputs.shape[1:])


def blobs(n_features: int = 20, n_classes: int = 3, n_train: int = 1000, n_test: int = 300, seed: int = 0) -> Dataset:
    """Gaussian blobs: centres 3·N(0, 1), around which all examples lie with unit noise."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(n_classes, n_features, generator=generator)

    def split(n_examples: int) -> Split:
        targets = torch.randint(n_classes, (n_examples,), generator=generator)
        noise = torch.randn(n_examples, n_features, generator=generator)
        return Split(centres[targets] + noise, targets)

    return Dataset("blobs", split(n_train), split(n_test), n_classes)


def digits() -> Dataset:
    """scikit-learn's digits of 8 by 8 pixels in [0, 1], flat; 1 437 to train, 360 to test, always the same.

    Source: Alpaydin & Kaynak (1998), the test part of UCI's optdigits.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise ImportError('digits needs scikit-learn: pip install "laconic-nn[demo]"') from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        pixels, labels, test_size=360, stratify=labels, random_state=0
    )
    train, test = (
        Split(torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y, dtype=torch.int64))
        for x, y in ((x_train, y_train), (x_test, y_test))
    )
    return Dataset("digits", train, test, 10)


def mnist() -> Dataset:
    """MNIST: inputs (examples, 1, 28, 28), normalised by the training set's mean and deviation.

    Source: LeCun, Cortes & Burges. 60 000 examples to train, 10 000 to test.

    Raises:
        FileNotFoundError: ``LACONIC_DATA`` is set and lacks a file.
        DownloadError: ``LACONIC_DATA`` is not set and a download failed.
        DataError: a file is malformed.
    """
    paths = located(_MNIST)
    return Dataset("mnist", _mnist_split(*paths[:2]), _mnist_split(*paths[2:]), N_CLASSES, _OF_MNIST.black)


def _mnist_split(images: Path, labels: Path) -> Split:
    pixels = read_idx(images, (28, 28))[:, None]
    targets = checked_labels(labels, read_idx(labels, ()))
    if len(pixels) != len(targets):
        raise DataError(f"{labels}: expected {len(pixels)} labels, found {len(targets)}")
    return Split(_normalised(pixels, _OF_MNIST), _int64(targets))


def cifar10() -> Dataset:
    """CIFAR-10: inputs (examples, 3, 32, 32), normalised by ImageNet's means and deviations.

    Source: Krizhevsky (2009). 50 000 examples to train (614 MB as floats), 10 000 to test. Errors are those of `mnist`.
    """
    paths = located(_CIFAR10)
    return Dataset("cifar10", _cifar10_split(*paths[:5]), _cifar10_split(*paths[5:]), N_CLASSES, _OF_IMAGENET.black)


def _cifar10_split(*paths: Path) -> Split:
    batches = [read_records(path, n_bytes=1 + 3 * 32 * 32) for path in paths]
    labels = [checked_labels(path, b[:, 0]) for path, b in zip(paths, batches, strict=True)]
    pixels = np.concatenate([batch[:, 1:] for batch in batches]).reshape(-1, 3, 32, 32)
    inputs = _normalised(pixels, _OF_IMAGENET)
    return Split(inputs, _int64(np.concatenate(labels)))


def _normalised(
    pixels: UInt8[np.ndarray, "examples channels height width"], by: _Normalisation
) -> Float[Tensor, "examples channels height width"]:
    """Pixels as fractions of 255, less their channel's mean, over its deviation."""
    inputs = torch.from_numpy(pixels.astype(np.float32))
    # In place: at CIFAR-10's size every temporary is 614 MB.
    return inputs.div_(255).sub_(torch.tensor(by.means).view(-1, 1, 1)).div_(torch.tensor(by.deviations).view(-1, 1, 1))


def _int64(labels: UInt8[np.ndarray, " examples"]) -> Int64[Tensor, " examples"]:
    return torch.from_numpy(labels.astype(np.int64))
