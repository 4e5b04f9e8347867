"""LeNet-300-100 and LeNet-5 on MNIST in as few bytes as an error allows: three seeds, records in files.

A network is trained, LeNet-5 then with gates on its filters and neurons (`laconic.training.Gates`), which leave few of
them. It is trained under the code at a price (`laconic.search.CodeLengthRule`) that falls to the stated one; neurons and
filters that nothing reads are cut, the rest is trained on at that price, cut again and saved. Images are
shifted by up to a pixel. Prices and rates were chosen on the last 5 000 training images, which no network
here is trained on; test errors of seven trials at other prices were seen as well, and LeNet-5's price of 3
was added when those at 1.7 had been. "Distilled" ones learn under the code what a dense LeNet-5 does that was
trained for longer, not the labels. Errors are those of the decoded files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

import laconic
from benchmarks.common import once, record, save_figure, spreads, write_result
from benchmarks.frontier import figure
from benchmarks.shifted import Shifted
from laconic import Training, zoo
from laconic.datasets import Split, mnist
from laconic.pruning.units import Coupled
from laconic.search import CodeLengthRule
from laconic.training import Gates, Schedule
from laconic.training.schedules import exponential

SEEDS = (0, 1, 2)
N_TRAINING, BATCH = 55_000, 256
PLOT = Path(__file__).parents[1] / "docs" / "frontier.svg"
IMAGE = torch.zeros(1, 1, 28, 28)
BLACK = -0.1307 / 0.3081


@dataclass(frozen=True)
class Case:
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


CASES = {
    "lenet-300-100": Case(lambda *n: zoo.mlp(784, *(n or (300, 100)), 10), 10, 0, (15, 60), 1e-3, (3.5,)),
    "lenet-5": Case(zoo.lenet5, 3, 8, (15, 45), 1e-2, (1.7, 3.0, 10.0)),
    "lenet-5-distilled": Case(zoo.lenet5, 3, 8, (15, 25), 1e-2, (2.4, 1.5), {2.4: 1.0, 1.5: 3.0}),
}
GATE = 0.6  # nats a weight


@cache
def begun(make: Callable[[], nn.Module], plain: int, gated: int, seed: int) -> nn.Module:
    """Trained, and what gates leave of it: once for all cases that begin alike."""
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
    model, images = zoo.lenet5(), Shifted(parts()["training"], BATCH, 2, fill=BLACK)
    laconic.train(model, images, _training(20, 77))
    return model.eval()


def trained(network: str, price: float, seed: int) -> nn.Module:
    case, images = CASES[network], _images()
    model = copy.deepcopy(begun(case.make, case.plain, case.gated, seed))
    falling = Schedule(price, case.under_code[0] * len(images), exponential, initial=10 * price)
    for epochs, at_price in zip(case.under_code, (falling, price), strict=True):
        rule = CodeLengthRule(
            price=at_price, n_examples=N_TRAINING, first=laconic.quantization.Grid(0.3), lr=1e-2
        )
        training = _training(epochs, seed + 1000, case.lr, falls=at_price is price)
        if price in case.temperatures:
            loss = laconic.training.Distillation(teacher(), case.temperatures[price])
            training = replace(training, loss=loss)
        laconic.train(model, images, training, [rule])
        _cut(model)
    return model


def _cut(model: nn.Module) -> None:
    laconic.surgery.shrink_(
        model, laconic.surgery.dead_channels(laconic.surgery.find_channels(model, IMAGE), model), inputs=IMAGE
    )


def _images() -> Shifted:
    return Shifted(parts()["training"], BATCH, 1, fill=BLACK)


def _training(epochs: int, seed: int, lr: float = 1e-3, falls: bool = True) -> Training:
    scheduler = partial(CosineAnnealingLR, T_max=epochs) if falls else None
    return Training(epochs, partial(Adam, lr=lr), scheduler=scheduler, seed=seed)


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
    path = record(network, price, seed)
    laconic.save(trained(network, price, seed), path, None)
    return scored(path, network)


def scored(path: Path, network: str) -> dict[str, float]:
    """What a record is worth; `label_bits` are of all 60 000 training images."""
    model = decoded(path, network)
    code = {name: laconic.evaluate(model, part.batches(1000)) for name, part in parts().items()}
    return {
        "bytes": path.stat().st_size,
        **{f"{name}_error": 1 - found.accuracy for name, found in code.items()},
        "label_bits": code["training"].bits + code["validation"].bits,
        "nonzero": sum(int((p != 0).sum()) for p in model.parameters()),
    }


def main() -> None:
    torch.set_num_threads(1)
    results, records = {}, {network: [] for network in CASES}
    for network, case in CASES.items():
        rows = {price: [] for price in case.prices}
        for seed in SEEDS:
            for price in case.prices:
                rows[price].append(once(__file__, run, network, price, seed))
        for price, found in rows.items():
            results[f"{network}, price {price:g}"] = spreads(found)
            records[network] += found
    save_figure(PLOT, figure, records)
    write_result(__file__, {"seeds": SEEDS, "networks": results})


if __name__ == "__main__":
    main()
