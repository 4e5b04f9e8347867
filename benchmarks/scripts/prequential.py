"""MNIST's 60 000 training labels, coded block by block with what networks learn from those before.

Blocks end at 8, 16, 32, … 32 768 and 60 000 labels, in the file's order (Blier & Ollivier 2018: 4.10 kbit by
a VGG-like network). Two learners are mixed: a perceptron with a hidden layer and a small convolutional
network. Both see random affine distortions of the images sent so far. Hyperparameters were chosen on the
first 256 labels; the test set is not used. A run that is interrupted goes on from the folder
runs/prequential.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.cifar import channels_last_
from benchmarks.record_keeping import once, spread, write_result
from laconic import Training
from laconic.datasets import Split, mnist
from laconic.mdl import Learner
from laconic.model import Objective

SEEDS = (0, 1, 2)
FOLDER = Path(__file__).parents[2] / "runs" / "prequential"
BLACK = -0.1307 / 0.3081
EPOCHS, BATCH = 50, 64


@dataclass(frozen=True)
class Amount:
    """How long to train.

    Attributes:
        most: steps for 32 768 examples; for others in proportion to the root of their number.
        least: steps that there are at least.
    """

    most: int
    least: int

    def steps_an_epoch(self, n_examples: int) -> int:
        """Epochs are always as many: the rate falls once in each."""
        return math.ceil(max(self.least, self.most * math.sqrt(n_examples / 32_768)) / EPOCHS)


@dataclass(frozen=True)
class Distorted:
    """Batches of distorted images, drawn in a new order whenever all have been."""

    sent: Split
    amount: Amount

    def __len__(self) -> int:
        return self.amount.steps_an_epoch(len(self.sent))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(len(self)):
            while len(order) < BATCH:
                order = torch.cat([order, torch.randperm(len(self.sent))])
            chosen, order = order[:BATCH], order[BATCH:]
            yield distorted(self.sent.inputs[chosen]), self.sent.targets[chosen]


def distorted(images: Tensor) -> Tensor:
    """Turned by up to 12°, sheared by up to 0.1, axes scaled by up to e^0.1, shifted by up to 2 pixels."""

    def drawn(most: float) -> Tensor:
        return most * (2 * torch.rand(len(images)) - 1)

    turn, wide, high, shear = drawn(math.radians(12)), drawn(0.1).exp(), drawn(0.1).exp(), drawn(0.1)
    rows = [
        torch.stack([turn.cos() * wide, (shear - turn.sin()) * high, drawn(2 / 14)], 1),
        torch.stack([turn.sin() * wide, turn.cos() * high, drawn(2 / 14)], 1),
    ]
    places = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images - BLACK, places, align_corners=False) + BLACK


def training(n_examples: int, lr: float) -> Training:
    """Adam at a rate that rises for five epochs and falls by a cosine.

    With few labels networks are too sure of themselves: a part of each label's probability, eight
    examples' worth in all and a tenth at most, is spread over the classes.
    """

    def rate(epoch: int) -> float:
        return min(1.0, (epoch + 1) / 5) * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2

    return Training(
        EPOCHS,
        partial(torch.optim.AdamW, lr=lr),
        Objective(partial(F.cross_entropy, label_smoothing=min(0.1, 8 / n_examples))),
        partial(LambdaLR, lr_lambda=rate),
    )


def perceptron() -> nn.Module:
    """784-256-10, half of the hidden units dropped while training."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10))


class Views(nn.Module):
    """A network that predicts by the mean probabilities of an image and of its four shifts by a pixel."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Logits while training, else logarithms of probabilities."""
        if self.training:
            return self.net(images)
        padded = F.pad(images, (1, 1, 1, 1), value=BLACK)
        corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
        views = [padded[..., top : top + 28, left : left + 28] for top, left in corners]
        found = torch.stack([self.net(view).double().log_softmax(1) for view in views])
        return found.logsumexp(0) - math.log(len(views))


def convolutional() -> nn.Module:
    """Convolutions of 16, 32, 32 and 64 channels with batch norms, then a linear layer: 38 458 parameters."""
    layers: list[nn.Module] = []
    for n_in, n_out, pooled in ((1, 16, True), (16, 32, False), (32, 32, True), (32, 64, True)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        if pooled:
            layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * 9, 10))
    return Views(channels_last_(net))


def learner(name: str, model: Callable[[], nn.Module], lr: float, amount: Amount) -> Learner:
    return Learner(name, model, partial(training, lr=lr), partial(Distorted, amount=amount))


LEARNERS = (
    learner("perceptron", perceptron, 1e-3, Amount(most=1500, least=200)),
    learner("convolutional", convolutional, 2e-3, Amount(most=6000, least=400)),
)


def run(seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    labelled = mnist().train
    ends = laconic.mdl.doubling(len(labelled))
    return laconic.mdl.prequential(LEARNERS, labelled, ends, n_classes=10, seed=seed, folder=FOLDER).to_dict()


def main(seeds: Sequence[int]) -> None:
    rows = {seed: once(__file__, run, seed) for seed in seeds}
    figures = {key: spread(row[key] for row in rows.values()) for key in ("total_bits", "compression")}
    write_result(__file__, {**figures, "seeds": rows})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
