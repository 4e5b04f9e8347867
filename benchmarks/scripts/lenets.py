"""LeNet-300-100 and LeNet-5 on MNIST in as few bytes as an error allows: three seeds, records in files.

A network is trained, LeNet-5 then with gates on its filters and neurons (`laconic.training.Gates`), which
leave few of them. It is trained under the code at a price (`laconic.search.CodeLengthRule`) that falls to the
stated one; neurons and filters that nothing reads are cut, the rest is trained on at that price, cut again
and saved. Images are shifted by up to a pixel. Prices and rates were chosen on the last 5 000 training
images, which no network here is trained on; test errors of seven trials at other prices were seen as well,
and LeNet-5's price of 3 was added when those at 1.7 had been. "Distilled" ones learn under the code what a
dense LeNet-5 does that was trained for longer, not the labels. Errors are those of the decoded files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.shifted import Shifted
from benchmarks.networks.splits import part
from benchmarks.plots.frontier import figure
from benchmarks.plots.style import save_figure
from benchmarks.record_keeping import once, record, spreads, write_result
from laconic import Training, zoo
from laconic.datasets import Split, mnist
from laconic.pruning.units import Coupled
from laconic.quantization import Grid
from laconic.search import CodeLengthRule
from laconic.training import Distillation, Gates, Schedule
from laconic.training.schedules import exponential

SEEDS = (0, 1, 2)
N_TRAINING, BATCH = 55_000, 256
IMAGE = torch.zeros(1, 1, 28, 28)


@dataclass(frozen=True)
class Setup:
    """A network, and how it is trained.

    Attributes:
        make: the network, of any widths.
        plain: epochs of plain training.
        gated: epochs with gates.
        under_code: epochs under the code, and epochs of the same once it is cut.
        lr: the rate under the code.
        prices: at which it is shortened.
        temperatures: where it learns what `teacher` does and not the labels: by price, see
            `laconic.training.Distillation`.
    """

    make: Callable[..., nn.Sequential]
    plain: int
    gated: int
    under_code: tuple[int, int]
    lr: float
    prices: tuple[float, ...]
    temperatures: Mapping[float, float] = field(default_factory=dict[float, float])


NETWORKS = {
    "lenet-300-100": Setup(lambda *n: zoo.mlp(784, *(n or (300, 100)), 10), 10, 0, (15, 60), 1e-3, (3.5,)),
    "lenet-5": Setup(zoo.lenet5, 3, 8, (15, 45), 1e-2, (1.7, 3.0, 10.0)),
    "lenet-5-distilled": Setup(zoo.lenet5, 3, 8, (15, 25), 1e-2, (2.4, 1.5), {2.4: 1.0, 1.5: 3.0}),
}
GATE = 0.6  # nats a weight


@cache
def begun(make: Callable[[], nn.Module], plain: int, gated: int, seed: int) -> nn.Module:
    """Trained, and what gates leave of it: once for all that begin alike."""
    images = _images()
    torch.manual_seed(seed)
    model = make()
    laconic.train(model, images, _training(plain, seed))
    if gated:
        gates = Gates(GATE, N_TRAINING, Coupled(laconic.surgery.find_channels(model, IMAGE)), lr=0.05)
        laconic.train(model, images, _training(gated, seed + 500), [gates])
        _cut(model)
    return model


@cache
def teacher() -> nn.Module:
    """LeNet-5 as it is, trained for longer, on images shifted further."""
    torch.manual_seed(77)
    model, images = zoo.lenet5(), _images(2)
    laconic.train(model, images, _training(20, 77))
    return model.eval()


def trained(network: str, price: float, seed: int) -> nn.Module:
    setup, images = NETWORKS[network], _images()
    model = copy.deepcopy(begun(setup.make, setup.plain, setup.gated, seed))
    falling = Schedule(price, setup.under_code[0] * len(images), exponential, initial=10 * price)
    for epochs, at_price in zip(setup.under_code, (falling, price), strict=True):
        rule = CodeLengthRule(price=at_price, n_examples=N_TRAINING, first=Grid(0.3), lr=1e-2)
        training = _training(epochs, seed + 1000, setup.lr, falls=at_price is price)
        if price in setup.temperatures:
            training = replace(training, objective=Distillation(teacher(), setup.temperatures[price]))
        laconic.train(model, images, training, [rule])
        _cut(model)
    return model


def _cut(model: nn.Module) -> None:
    dead = laconic.surgery.dead_channels(laconic.surgery.find_channels(model, IMAGE), model)
    laconic.surgery.shrink_(model, dead, inputs=IMAGE)


def _images(pixels: int = 1) -> Shifted:
    return Shifted(parts()["training"], BATCH, pixels, mnist().black)


def _training(epochs: int, seed: int, lr: float = 1e-3, falls: bool = True) -> Training:
    scheduler = partial(CosineAnnealingLR, T_max=epochs) if falls else None
    return Training(epochs, partial(Adam, lr=lr), scheduler=scheduler, seed=seed)


def parts() -> dict[str, Split]:
    data = mnist()
    return {
        "training": part(data.train, slice(N_TRAINING)),
        "validation": part(data.train, slice(N_TRAINING, None)),
        "test": data.test,
    }


def decoded(path: Path, network: str) -> nn.Module:
    """The network of a record, whose shapes say how wide it is."""
    tensors = laconic.load(path)
    widths = [len(tensor) for name, tensor in tensors.items() if name.endswith("weight")]
    model = NETWORKS[network].make(*widths[:-1])
    model.load_state_dict(tensors)
    return model.eval()


def run(network: str, price: float, seed: int) -> dict[str, float]:
    path = record(network, price, seed)
    laconic.save(trained(network, price, seed), path, None)
    return scored(path, network)


def scored(path: Path, network: str) -> dict[str, float]:
    """What a record is worth; `label_bits` are of all 60 000 training images."""
    model = decoded(path, network)
    code = {name: laconic.evaluate(model, data.batches(1000)) for name, data in parts().items()}
    return {
        "bytes": path.stat().st_size,
        **{f"{name}_error": 1 - found.accuracy for name, found in code.items()},
        "label_bits": code["training"].bits + code["validation"].bits,
        "nonzero": sum(int((p != 0).sum()) for p in model.parameters()),
    }


def main(seeds: Sequence[int]) -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    records: dict[str, list[dict[str, float]]] = {network: [] for network in NETWORKS}
    for network, setup in NETWORKS.items():
        for price in setup.prices:
            found = [once(__file__, run, network, price, seed) for seed in seeds]
            results[f"{network}, price {price:g}"] = spreads(found)
            records[network] += found
    save_figure("frontier", figure, records)
    write_result(__file__, {"seeds": seeds, "networks": results})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
