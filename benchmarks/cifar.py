"""The trained ResNet-20, and how benchmarks fine-tune it: by distillation on crops and flips."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import laconic
from benchmarks.shifted import Shifted
from laconic import zoo
from laconic.datasets import Split, cifar10

BATCH = 128


def resnet20() -> nn.Module:
    """The trained network, in evaluation mode."""
    model = zoo.resnet20()
    zoo.load_checkpoint(model, Path(os.environ["LACONIC_DATA"]) / "checkpoints" / "resnet20-12fca82f.th")
    return model.eval()


def accuracy(model: nn.Module) -> float:
    """Of all test images, in float32."""
    fast = copy.deepcopy(model).to(memory_format=torch.channels_last)  # and in cache: half the time
    return laconic.evaluate(fast, cifar10().test.batches(100)).accuracy


def drawn(seed: int, n: int) -> Split:
    """Training images."""
    data = cifar10().train
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return Split(*data.__getitems__(order[:n].tolist()))


def fine_tune(
    model: nn.Module, epochs: int, lr: float, seed: int, rules: Sequence[laconic.Rule] = ()
) -> None:
    """Train with momentum to do what the trained network does, at a rate that falls along a cosine."""
    teacher = remembering_teacher()
    training = laconic.Training(
        epochs,
        partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4),
        laconic.Distillation(teacher),
        partial(CosineAnnealingLR, T_max=epochs),
        seed,
    )
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = Shifted(cifar10().train, BATCH, pixels=4, flips=True)
    with _fast(model), _fast(teacher):
        laconic.train(model, images, training, rules)
    model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    model.eval()


class Remembering(nn.Module):
    """A network that goes through a batch once: runs of the same seed train on the same batches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.known: dict[bytes, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, (cases, classes)."""
        key = hashlib.blake2b(images.movedim(1, 3).contiguous().numpy()).digest()
        if key not in self.known:
            self.known[key] = self.model(images)
        return self.known[key]


@cache
def remembering_teacher() -> nn.Module:
    """The trained network, for the runs of one process."""
    return Remembering(resnet20().to(memory_format=torch.channels_last)).eval()


@contextmanager
def _fast(model: nn.Module) -> Iterator[None]:
    """Products in bfloat16 on processors that may have them; others emulate them, ten times slower."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        yield
        return
    exact = model.forward

    def forward(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return exact(images).float()

    model.forward = forward
    try:
        yield
    finally:
        del model.forward
