"""ResNet-20 on CIFAR-10, trained under the code for fifteen epochs: two prices, three seeds.

Batch norms are folded into the layers before them, all numbers are rounded by rate and loss with 2 048
training images, and the network is trained at a price (`laconic.search.CodeLengthRule`) to do what the trained one does,
without labels, on crops and flips. Files hold all numbers of the network that they decode to, and are kept
as records; accuracy is on all 10 000 test images.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

import laconic
from benchmarks.cifar import accuracy, crops, drawn, folded, learn, resnet20
from benchmarks.common import once, record, spreads, write_result
from laconic import Training
from laconic.model.evidence import GRAM
from laconic.quantization import RateLoss
from laconic.search import CodeLengthRule

SEEDS = (0, 1, 2)
PRICES = (8.0, 3.2)
N_IMAGES, ROUNDED_AT = 2048, 1e6
EPOCHS, BATCH, LEARNING_RATE = 15, 128, 1e-3


def rounded(seed: int) -> nn.Module:
    model = folded()
    evidence = laconic.model.observe(model, drawn(seed, N_IMAGES).batches(64), [GRAM])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rounded.lac"
        laconic.save(model, path, RateLoss(ROUNDED_AT, evidence=evidence))
        return laconic.load(path, into=model)


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
    decoded = laconic.load(path, into=folded())
    return {"file_bytes": path.stat().st_size, "accuracy": accuracy(decoded)}


def main() -> None:
    runs = {price: [once(__file__, run, price, seed) for seed in SEEDS] for price in PRICES}
    prices = {f"{price:g}": spreads(rows) for price, rows in runs.items()}
    choices = {"seeds": SEEDS, "epochs": EPOCHS, "batch": BATCH, "learning_rate": LEARNING_RATE}
    write_result(__file__, {**choices, "dense_accuracy": accuracy(resnet20()), "prices": prices})


if __name__ == "__main__":
    main()
