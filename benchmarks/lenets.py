"""LeNet-300-100 and LeNet-5 on MNIST in as few bytes as an error allows: three seeds, records in files.

A network is trained, then trained under the code at a price (`laconic.Shorten`) that falls to the stated
one; neurons and filters that nothing reads are cut, the rest is trained on at that price, cut again and
saved. Images are shifted by up to a pixel. The price was chosen on the last 5 000 training images, which no
network here is trained on (test errors of four trials at other prices were seen as well). Errors are those
of the decoded files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

import laconic
from benchmarks.common import once, spread, write_result
from benchmarks.shifted import Shifted
from laconic import Falling, Shorten, Training, zoo
from laconic.datasets import Split, mnist

SEEDS = (0, 1, 2)
N_TRAINING, BATCH = 55_000, 256
RECORDS = Path(__file__).parent / "records"
IMAGE = torch.zeros(1, 1, 28, 28)
BLACK = -0.1307 / 0.3081


@dataclass(frozen=True)
class Case:
    """A network, and epochs of plain training, of training under the code, and of the same once it is cut."""

    make: Callable[..., nn.Sequential]
    plain: int
    under_code: int
    cut: int


CASES = {
    "lenet-300-100": Case(lambda *n: zoo.mlp(784, *(n or (300, 100)), 10), 10, 15, 60),
    "lenet-5": Case(zoo.lenet5, 3, 6, 60),
}
PRICES = {"lenet-300-100": (3.5,)}


def trained(network: str, price: float, seed: int) -> nn.Module:
    case, images = CASES[network], Shifted(parts()["training"], BATCH, 1, fill=BLACK)
    torch.manual_seed(seed)
    model = case.make()
    laconic.train(model, images, _training(case.plain, seed))
    falling = Falling(price, 10.0, case.under_code * len(images))
    for epochs, at_price in ((case.under_code, falling), (case.cut, price)):
        rule = Shorten(price=at_price, n_cases=N_TRAINING, first=laconic.Grid(0.3), lr=1e-2)
        falls = epochs == case.cut
        laconic.train(model, images, _training(epochs, seed + 1000, falls), [rule])
        laconic.shrink_(model, laconic.unread(laconic.channels(model, IMAGE), model), inputs=IMAGE)
    return model


def _training(epochs: int, seed: int, falls: bool = True) -> Training:
    scheduler = partial(CosineAnnealingLR, T_max=epochs) if falls else None
    return Training(epochs, partial(Adam, lr=1e-3), scheduler=scheduler, seed=seed)


def parts() -> dict[str, Split]:
    data = mnist()
    inputs, targets = data.train.inputs, data.train.targets
    return {
        "training": Split(inputs[:N_TRAINING], targets[:N_TRAINING]),
        "validation": Split(inputs[N_TRAINING:], targets[N_TRAINING:]),
        "test": data.test,
    }


def decoded(path: Path, network: str) -> nn.Module:
    """The network of a record, whose shapes say how wide it is."""
    tensors = laconic.load(path)
    widths = [len(tensor) for name, tensor in tensors.items() if name.endswith("weight")]
    model = CASES[network].make(*widths[:-1])
    model.load_state_dict(tensors)
    return model.eval()


def run(network: str, price: float, seed: int) -> dict[str, float]:
    model = trained(network, price, seed)
    path = RECORDS / f"{network}-{price:g}-{seed}.lac"
    path.parent.mkdir(exist_ok=True)
    n_bytes = laconic.save(model, path, None)
    back = decoded(path, network)
    code = {name: laconic.evaluate(back, part.batches(1000)) for name, part in parts().items()}
    return {
        "bytes": n_bytes,
        **{f"{name}_error": 1 - found.accuracy for name, found in code.items()},
        "training_data_bits": code["training"].bits,
        "nonzero": sum(int((p != 0).sum()) for p in back.parameters()),
    }


def main() -> None:
    torch.set_num_threads(1)
    results = {}
    for network, prices in PRICES.items():
        for price in prices:
            rows = [once(__file__, run, network, price, seed) for seed in SEEDS]
            results[f"{network}, price {price:g}"] = {key: spread(r[key] for r in rows) for key in rows[0]}
    write_result(__file__, {"seeds": SEEDS, "networks": results})


if __name__ == "__main__":
    main()
