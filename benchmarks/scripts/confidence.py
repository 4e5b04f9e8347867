"""How often is a drop of at most 0.01 missed on new examples? Digits, MNIST and CIFAR-10, twenty draws each.

One network for each data set, rounded by `compress` with `MaxDrop(0.01)`: at its default confidence, and at
0.5, which takes the drop on the held-out examples as it is. A draw picks the held-out examples that judge; the
others are new. The target is missed if the file's network is right on fewer of the new examples than the
network before it, by more than a hundredth of them.

Both parts are drawn from examples that the network was not trained on, because it is right about nearly all of
those it was trained on, and a file's errors among them tell little of its errors among others. So ResNet-20,
whose checkpoint saw all training images, is judged by 3 000 of CIFAR-10's test images, and the 7 000 others are
new. LeNet-300-100 is trained on 50 000 images of MNIST; of the 20 000 others 2 000 judge. The digits are all of
UCI's optdigits: 1 620 to train on, 1 500 judge, 2 500 are new. Layers' inputs are observed on training images.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.by_number import ByNumber, Numbered
from benchmarks.networks.cifar import channels_last_, drawn, resnet20
from benchmarks.networks.splits import part
from benchmarks.record_keeping import once, spreads, write_result
from laconic import MaxDrop, Training, zoo
from laconic.datasets import Split, cifar10, mnist

DRAWS = tuple(range(20))
DROP, CONFIDENCES = 0.01, (0.95, 0.5)
AT_ONCE = 500
N_OBSERVED = {"digits": 512, "MNIST": 512, "CIFAR-10": 256}  # images say more of convolutions: once for each place
N_HELD_OUT = {"digits": 1500, "MNIST": 2000, "CIFAR-10": 3000}


@dataclass(frozen=True, eq=False)
class Task:
    """A trained network, training examples that it is observed on, and examples that it was not trained on."""

    make: Callable[[], nn.Module]
    model: nn.Module
    observed: Split
    unseen: Split


def of_digits() -> Task:
    folder = Path(os.environ["LACONIC_DATA"]) / "tabular"
    table = np.concatenate([np.loadtxt(folder / f"optdigits.{of}", delimiter=",", skiprows=1) for of in ("tra", "tes")])
    pixels, labels = torch.tensor(table[:, :-1] / 16, dtype=torch.float32), torch.tensor(table[:, -1]).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return _trained("digits", Split(pixels[order], labels[order]), 1620, zoo.digits_net, 20)


def of_mnist() -> Task:
    data = mnist()
    train, test = data.train, data.test
    every = Split(torch.cat([train.inputs, test.inputs]), torch.cat([train.targets, test.targets]))
    return _trained("MNIST", every, 50_000, zoo.lenet_300_100, 5)


def of_cifar10() -> Task:
    n, seen, test = N_OBSERVED["CIFAR-10"], drawn(0, N_OBSERVED["CIFAR-10"]), cifar10().test
    numbered = Numbered(torch.cat([seen.inputs, test.inputs]), n)
    numbers = torch.arange(n + len(test)).split((n, len(test)))

    def make() -> nn.Module:
        return ByNumber(channels_last_(resnet20()), numbered)

    return Task(make, make(), Split(numbers[0], seen.targets), Split(numbers[1], test.targets))


def _trained(name: str, every: Split, n: int, make: Callable[[], nn.Module], epochs: int) -> Task:
    torch.manual_seed(0)
    model, seen = make(), part(every, slice(n))
    laconic.train(model, seen.batches(64, shuffle=True), Training(epochs, seed=0))
    return Task(make, model.eval(), part(seen, slice(N_OBSERVED[name])), part(every, slice(n, None)))


TASKS: Mapping[str, Callable[[], Task]] = {"digits": of_digits, "MNIST": of_mnist, "CIFAR-10": of_cifar10}


@cache
def begun(name: str) -> tuple[Task, Tensor]:
    """The task, and which of its unseen examples its network is right about."""
    torch.set_num_threads(1)
    task = TASKS[name]()
    return task, right(task.model, task.unseen)


@cache
def right_by_file(name: str, file: bytes) -> Tensor:
    """Which of the unseen examples a file's network is right about: draws often end with the same file."""
    task, _ = begun(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.lac"
        path.write_bytes(file)
        return right(laconic.load(path, into=task.make()).eval(), task.unseen)


@torch.no_grad()
def right(model: nn.Module, examples: Split) -> Tensor:
    """Which examples a network is right about."""
    return torch.cat([model(inputs).argmax(1) == targets for inputs, targets in examples.batches(AT_ONCE)])


def run(name: str, confidence: float, draw: int) -> dict[str, float]:
    task, before = begun(name)
    order = torch.randperm(len(task.unseen), generator=torch.Generator().manual_seed(draw))
    held_out, new = order[: N_HELD_OUT[name]], order[N_HELD_OUT[name] :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.lac"
        judging = part(task.unseen, held_out).batches(AT_ONCE)
        found = laconic.compress(task.model, task.observed.batches(64), path, MaxDrop(DROP, confidence), judging)
        after = right_by_file(name, path.read_bytes())
    lost = before.long() - after.long()
    return {
        "bytes": found.chosen.measured.n_bytes,
        "held_out_drop": float(lost[held_out].double().mean()),
        "new_drop": float(lost[new].double().mean()),
        "missed": int(lost[new].sum()) > DROP * len(new),
        "too_few_examples": bool(found.warnings),
        "attempts": len(found.attempts),
    }


def row(name: str, confidence: float, draws: Sequence[int]) -> dict[str, Any]:
    rows = [once(__file__, run, name, confidence, draw) for draw in draws]
    counts = {key: sum(bool(row.pop(key)) for row in rows) for key in ("missed", "too_few_examples")}
    return {"draws": len(rows), **counts, **spreads(rows)}


def main(draws: Sequence[int]) -> None:
    data: dict[str, Any] = {}
    for name, n_held_out in N_HELD_OUT.items():
        task, before = begun(name)
        data[name] = {
            "observed": len(task.observed),
            "held_out": n_held_out,
            "new": len(task.unseen) - n_held_out,
            "accuracy_before": float(before.double().mean()),
            "confidence": {f"{confidence:g}": row(name, confidence, draws) for confidence in CONFIDENCES},
        }
    write_result(__file__, {"drop": DROP, "data": data})


if __name__ == "__main__":
    main(command_line(__doc__, DRAWS).parse_args().seeds)
