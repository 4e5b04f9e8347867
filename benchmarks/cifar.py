"""The trained ResNet-20, and how benchmarks fine-tune it: by distillation, on crops and flips.

An allocator that keeps its pages (such as jemalloc, preloaded, without decay) takes a quarter of an epoch's
time away, and two processes of one thread do more than one of two.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

import laconic
from benchmarks.shifted import Shifted
from laconic import zoo
from laconic.datasets import Split, cifar10


def resnet20() -> nn.Module:
    """The trained network, in evaluation mode."""
    model = zoo.resnet20()
    zoo.load_checkpoint(model, Path(os.environ["LACONIC_DATA"]) / "checkpoints" / "resnet20-12fca82f.th")
    return model.eval()


def folded() -> nn.Module:
    """The same with its batch norms in the layers before them."""
    return laconic.surgery.fuse_batch_norms(resnet20(), torch.zeros(2, 3, 32, 32))


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
    model: nn.Module,
    epochs: int,
    lr: float,
    images: Shifted,
    seed: int,
    rules: Sequence[laconic.training.Rule] = (),
) -> None:
    """Learn what the trained network does, with momentum, at a rate that falls to zero step by step."""
    n_steps = epochs * len(images)

    def optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        sgd = torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
        falls = LambdaLR(sgd, lambda step: 1 - step / n_steps)
        sgd.register_step_post_hook(lambda *_: falls.step())
        return sgd

    learn(model, laconic.Training(epochs, optimizer, seed=seed), images, rules)


def crops(batch: int) -> Shifted:
    """The training images, cropped and flipped at random."""
    return Shifted(cifar10().train, batch, pixels=4, flips=True)


def learn(
    model: nn.Module, training: laconic.Training, images: Shifted, rules: Sequence[laconic.training.Rule] = ()
) -> None:
    """Train to do what the trained network does; the model comes back on the CPU, in evaluation mode."""
    teacher = folded()
    for network in (model, teacher):
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with _fast(model), _fast(teacher):
        laconic.train(model, images, replace(training, loss=laconic.training.Distillation(teacher)), rules)
    model.to("cpu", memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    model.eval()


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
