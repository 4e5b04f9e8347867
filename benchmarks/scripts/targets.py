"""`laconic.compress` with each target: digits, MNIST and CIFAR-10; three seeds where networks are trained.

The search judges by examples that it neither observes nor trains on: 287 training examples of digits, 5 000
images of MNIST, 2 000 of CIFAR-10 (which the checkpoint was trained on). Test scores are read once, of the
file that is left. LeNet-300-100 and the digits' network are trained here, and then fine-tuned under the code;
ResNet-20 is a checkpoint, and only rounded, observed on 2 048 training images. What was tried is kept from
target to target of one network. Takes more than an hour.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks import cifar
from benchmarks.networks.splits import part
from benchmarks.record_keeping import once, spreads, write_result
from laconic import MaxBytes, MaxDrop, Shortest, Training, zoo
from laconic.datasets import Dataset, Split, cifar10, digits, mnist
from laconic.search import Attempt, Target

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Task:
    """A trained network, the examples it is observed and trained on, those to judge by, and to test on."""

    model: nn.Module
    make: Callable[[], nn.Module]
    data: Split
    judged_by: Split
    test: Split
    finetune: Training | None


def of_digits(seed: int) -> Task:
    return _trained(digits(), 1150, zoo.digits_net, 20, 10, seed)


def of_mnist(seed: int) -> Task:
    return _trained(mnist(), 55_000, zoo.lenet_300_100, 10, 4, seed)


def of_cifar10(seed: int) -> Task:
    order = torch.randperm(50_000, generator=torch.Generator().manual_seed(seed))
    data = cifar10()
    observed, judged = (part(data.train, chosen) for chosen in order[:4048].split(2048))
    return Task(cifar.resnet20(), cifar.resnet20, observed, judged, data.test, None)


def _trained(data: Dataset, n: int, make: Callable[[], nn.Module], epochs: int, tuning: int, seed: int) -> Task:
    torch.manual_seed(seed)
    seen, rest = part(data.train, slice(n)), part(data.train, slice(n, None))
    model = make()
    laconic.train(model, seen.batches(64, shuffle=True), Training(epochs, seed=seed))
    return Task(model.eval(), make, seen, rest, data.test, Training(tuning, seed=seed + 1))


TASKS = {"digits": of_digits, "mnist, LeNet-300-100": of_mnist, "cifar-10, ResNet-20": of_cifar10}
TARGETS: Mapping[str, tuple[Target, ...]] = {
    "digits": (MaxDrop(0.01), MaxBytes(1500), Shortest()),
    "mnist, LeNet-300-100": (MaxDrop(0.005), MaxBytes(5000), Shortest()),
    "cifar-10, ResNet-20": (MaxDrop(0.01), MaxBytes(80_000), Shortest()),
}


def run(name: str, seed: int) -> dict[str, dict[str, Any]]:
    task = TASKS[name](seed)
    with tempfile.TemporaryDirectory() as folder:
        return {str(target): of_target(task, target, Path(folder)) for target in TARGETS[name]}


def of_target(task: Task, target: Target, folder: Path) -> dict[str, Any]:
    def score(split: Split, model: nn.Module) -> float:
        return laconic.evaluate(model, split.batches(500)).accuracy

    path, made = folder / "net.lac", list[Attempt]()
    batches = task.data.batches(64, shuffle=task.finetune is not None)
    judge = partial(score, task.judged_by)
    found = laconic.compress(
        task.model, batches, path, target, judge, task.finetune, made.append, keep=folder / "attempts"
    )
    decoded = laconic.load(path, into=task.make()).eval()
    return {
        "bytes": found.chosen.measured.n_bytes,
        "times_smaller": found.dense_bytes / found.chosen.measured.n_bytes,
        "misses": found.misses,
        "score": found.chosen.measured.score,
        "score_before": found.score,
        "test_accuracy": score(task.test, decoded),
        "test_accuracy_before": score(task.test, task.model),
        "attempts": len(found.attempts),
        "attempts_made": len(made),
    }


def main(seeds: Sequence[int]) -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name, targets in TARGETS.items():
        rows = [once(__file__, run, name, seed) for seed in seeds]
        results[name] = {str(target): spreads(row[str(target)] for row in rows) for target in targets}
    write_result(__file__, {"seeds": seeds, "tasks": results})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
