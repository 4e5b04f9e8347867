"""The trained ResNet-20 on CIFAR-10, and its fine-tuning: by distillation, on crops and flips.

An allocator that keeps its pages (such as jemalloc, preloaded, without decay) takes a quarter of an epoch's
time away, and two processes of one thread do more than one of two.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

import laconic
from benchmarks.networks.resnets import trained_resnet
from benchmarks.networks.shifted import Shifted
from benchmarks.networks.splits import part
from laconic.datasets import Split, cifar10
from laconic.zoo import ResNet

M = TypeVar("M", bound=nn.Module)
MEAN_COLOUR = (0.0, 0.0, 0.0)  # after the normalisation


def resnet20() -> ResNet:
    """The trained network, in evaluation mode."""
    return trained_resnet(20)


def fused_resnet20() -> nn.Module:
    """The same with its batch norms fused into the layers before them."""
    return laconic.surgery.fuse_batch_norms(resnet20(), torch.zeros(2, 3, 32, 32))


def accuracy(model: nn.Module) -> float:
    """Of all test images, in float32."""
    fast = channels_last_(copy.deepcopy(model))  # and in cache: half the time
    return laconic.evaluate(fast, cifar10().test.batches(100)).accuracy


def channels_last_(model: M) -> M:
    """The same network, its kernels in the order that convolutions are fast with."""
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def drawn(seed: int, n: int) -> Split:
    """Training images."""
    data = cifar10().train
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return part(data, order[:n])


def fine_tune(
    model: nn.Module, epochs: int, lr: float, images: Shifted, seed: int, rules: Sequence[laconic.training.Rule] = ()
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
    """The training images, cropped and flipped at random, with borders of the mean colour.

    The network was trained with black ones, see `as_in_training`; results of fine-tuning are of these.
    """
    return as_in_training(cifar10().train, batch, MEAN_COLOUR)


def as_in_training(images: Split, batch: int, borders: tuple[float, ...] | None = None) -> Shifted:
    """Images cropped and flipped at random as those that the network was trained on, with black borders or others."""
    return Shifted(images, batch, 4, cifar10().black if borders is None else borders, flips=True)


def learn(
    model: nn.Module, training: laconic.Training, images: Shifted, rules: Sequence[laconic.training.Rule] = ()
) -> None:
    """Train to do what the trained network does; the model comes back on the CPU, in evaluation mode."""
    teacher = fused_resnet20()
    for network in (model, teacher):
        channels_last_(network)
    with _fast(model), _fast(teacher):
        laconic.train(model, images, replace(training, objective=laconic.training.Distillation(teacher)), rules)
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
