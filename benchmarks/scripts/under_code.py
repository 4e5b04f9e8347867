"""ResNet-20 on CIFAR-10, trained under the code for fifteen epochs: two prices, three seeds.

Batch norms are fused into the layers before them, all numbers are rounded by rate and loss with 2 048
training images, and the network is trained at a price (`laconic.search.CodeLengthRule`) to do what the
trained one does, without labels, on crops and flips. Files hold all numbers of the network that they decode
to, and are kept as records; accuracy is on all 10 000 test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.cifar import accuracy, crops, drawn, fused_resnet20, learn, resnet20
from benchmarks.networks.decoded import decoded
from benchmarks.record_keeping import once, record, spreads, write_result
from laconic import Training
from laconic.model import Statistic
from laconic.quantization import RateLoss
from laconic.search import CodeLengthRule

SEEDS = (0, 1, 2)
PRICES = (8.0, 3.2)
N_IMAGES, ROUNDED_AT = 2048, 1e6
EPOCHS, BATCH, LEARNING_RATE = 15, 128, 1e-3


def rounded(seed: int) -> nn.Module:
    model = fused_resnet20()
    evidence = laconic.model.observe(model, drawn(seed, N_IMAGES).batches(64), [Statistic.GRAM])
    return decoded(model, model, RateLoss(ROUNDED_AT, evidence=evidence))[0]


def trained(price: float, seed: int) -> nn.Module:
    model, images = rounded(seed), crops(BATCH)
    falls = partial(CosineAnnealingLR, T_max=EPOCHS)
    training = Training(EPOCHS, partial(Adam, lr=LEARNING_RATE), scheduler=falls, seed=seed)
    rule = CodeLengthRule(price=price, n_examples=len(images.data), every=len(images), lr=1e-2)
    learn(model, training, images, [rule])
    return model


def run(price: float, seed: int) -> dict[str, float]:
    path = record("resnet-20", price, seed)
    laconic.save(trained(price, seed), path, None)
    return scored(path)


def scored(path: Path) -> dict[str, float]:
    network = laconic.load(path, into=fused_resnet20())
    return {"file_bytes": path.stat().st_size, "accuracy": accuracy(network)}


def main(seeds: Sequence[int]) -> None:
    runs = {price: [once(__file__, run, price, seed) for seed in seeds] for price in PRICES}
    prices = {f"{price:g}": spreads(rows) for price, rows in runs.items()}
    choices = {"seeds": seeds, "epochs": EPOCHS, "batch": BATCH, "learning_rate": LEARNING_RATE}
    write_result(__file__, {**choices, "dense_accuracy": accuracy(resnet20()), "prices": prices})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
