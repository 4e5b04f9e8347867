"""The demonstration: train, prune round by round, write files, decode them, and count bits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from laconic import zoo
from laconic.datasets import standard
from laconic.datasets.standard import Dataset
from laconic.description.ledger import Measurement
from laconic.model.selectors import compressible
from laconic.pruning.mask import Mask
from laconic.pruning.pruner import Pruner
from laconic.quantization.grid import Grid
from laconic.report.measurement import dense_float32_bits, fewest_bits, measure, table
from laconic.report.pages import Page, standard_figures, write_page
from laconic.report.tensor_table import compare_tensors
from laconic.training.iterative import prune_iteratively_
from laconic.training.loop import ProgressBar, Training, train
from laconic.training.rules import Hold
from laconic.training.schedules import Schedule, geometric

FIRST_SPARSITY, LAST_SPARSITY, N_ROUNDS = 0.5, 0.95, 5
QUANTIZER = Grid(0.1)
MAX_DROP = 0.01  # of the score, in what is won


@dataclass(frozen=True)
class Experiment:
    """Data, a network, and how it is trained and fine-tuned."""

    data: Callable[[], Dataset]
    network: Callable[[], nn.Module]
    dense: Training
    fine_tuning: Training
    batch_size: int | None = 64

    def seeded(self, seed: int) -> Experiment:
        """The same experiment with another order of training."""
        dense, tuning = replace(self.dense, seed=seed), replace(self.fine_tuning, seed=seed + 1)
        return replace(self, dense=dense, fine_tuning=tuning)


_adam, _sgd = partial(torch.optim.Adam, lr=1e-3), torch.optim.SGD

EXPERIMENTS = {
    "digits": Experiment(
        standard.digits,
        partial(zoo.lenet_300_100, n_inputs=64),
        Training(epochs=40, optimizer=_adam),
        Training(epochs=20, optimizer=_adam),
    ),
    "mnist": Experiment(
        standard.mnist,
        zoo.lenet_300_100,
        Training(epochs=10, optimizer=_adam, scheduler=partial(CosineAnnealingLR, T_max=10)),
        Training(epochs=4, optimizer=_adam, scheduler=partial(CosineAnnealingLR, T_max=4)),
        batch_size=128,
    ),
    "blobs": Experiment(
        standard.blobs,
        zoo.blobs_net,
        Training(epochs=100, optimizer=partial(_sgd, lr=0.01)),
        Training(epochs=50, optimizer=partial(_sgd, lr=0.005)),
        batch_size=None,
    ),
}


def run(name: str, folder: Path, seed: int, console: Console) -> list[Measurement]:
    """Run the experiment `name`, write its files and report into `folder`, and print the table."""
    experiment = EXPERIMENTS[name].seeded(seed)
    data = experiment.data()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = experiment.network()
    console.print(
        f"{name}: {len(data.train):,} training and {len(data.test):,} test examples; "
        f"a network of {sum(p.numel() for p in model.parameters()):,} parameters"
    )
    stages, masks, weights = list[Measurement](), list[Mask](), list[dict[str, nn.Parameter]]()
    for mask in _prune(model, experiment, data, console):
        label = f"{mask.sparsity:.0%} pruned" if stages else "dense"
        path = folder / f"{label.replace('% ', '-percent-')}.lac"
        stages.append(measure(label, model, path, data, QUANTIZER)[0])
        masks.append(mask)
        weights.append(compressible(copy.deepcopy(model)))
    console.print(table(stages))
    summary = _summary(stages, data)
    for line in summary:
        console.print(line)
    figures = standard_figures(stages, weights[0], weights[-1], masks[-1])
    settings = _settings(experiment, seed)
    left = compare_tensors(model, model, data.test.inputs[:1], stages[-1].ledger)
    command = f"laconic demo --data {name} --seed {seed}"
    page = Page(f"Laconic on {name}", stages, figures, settings, summary[1:], left, command)
    report = write_page(folder / "report.html", page)
    console.print(f"Report: {report.resolve()}", soft_wrap=True)
    yours = "laconic compress mine:network -o net.lac --data mine:batches --max-drop 1%"
    console.print(f"A network of yours: {yours}", soft_wrap=True)
    return stages


def _prune(model: nn.Module, experiment: Experiment, data: Dataset, console: Console) -> Iterator[Mask]:
    """Train `model` densely, then prune and fine-tune it round by round; the mask after each stage."""
    batches = data.train.batches(experiment.batch_size, shuffle=True)
    with ProgressBar("dense", console) as bar:
        train(model, batches, experiment.dense, callbacks=[bar])
    yield Pruner().mask(model)

    def fine_tune(model: nn.Module, mask: Mask) -> None:
        with ProgressBar(f"{mask.sparsity:.0%} pruned", console) as bar:
            train(model, batches, experiment.fine_tuning, [Hold(mask)], [bar])

    first = Schedule(FIRST_SPARSITY, end=1)
    rest = Schedule(LAST_SPARSITY, N_ROUNDS, geometric, initial=FIRST_SPARSITY)
    for schedule in (first, rest):
        for done in prune_iteratively_(model, schedule, fine_tune):
            yield done.mask


def _summary(stages: list[Measurement], data: Dataset) -> list[str]:
    dense, last = stages[0], stages[-1]
    float32_bytes = dense_float32_bits(stages) / 8

    def won(stage: Measurement) -> str:
        points = 100 * (stage.score - dense.score)
        return f"{float32_bytes / stage.n_bytes:.0f} times smaller than the float32 weights, at {points:+.2f} points"

    good = min((s for s in stages if s.score >= dense.score - MAX_DROP), key=lambda stage: stage.n_bytes)
    uniform_bits = len(data.train) * math.log2(data.n_classes)
    shortest = stages[fewest_bits(stages)]
    pays = shortest.total_bits < uniform_bits
    return [
        f"The last file is {won(last)}.",
        f"The shortest that loses at most {100 * MAX_DROP:g} point, {good.name}, is {won(good)}.",
        f"As a description of the {len(data.train):,} training labels, pruning made the network "
        f"{'shorter' if last.total_bits < dense.total_bits else 'longer'}: "
        f"{dense.total_bits:,.0f} → {last.total_bits:,.0f} bits. "
        f"Without any network the labels take {uniform_bits:,.0f} bits, so for them alone the best one "
        f"{'pays.' if pays else 'does not pay: it earns its bits by what it says of new examples.'}",
    ]


def _settings(experiment: Experiment, seed: int) -> dict[str, str]:
    rounds = f"{FIRST_SPARSITY:.0%}, then {N_ROUNDS} rounds to {LAST_SPARSITY:.0%}"
    return {
        "dense training": _describe(experiment.dense),
        "fine-tuning, each round": _describe(experiment.fine_tuning),
        "batch size": str(experiment.batch_size or "all examples"),
        "pruning": f"global magnitude, {rounds}",
        "grid": f"relative error {QUANTIZER.relative_error} a tensor",
        "data bits": "of the training labels",
        "seed": str(seed),
        "PyTorch": torch.__version__,
    }


def _describe(training: Training) -> str:
    optimizer = training.optimizer
    assert isinstance(optimizer, partial)  # as all of `EXPERIMENTS` have it
    arguments = ", ".join(f"{key} {value}" for key, value in optimizer.keywords.items())
    return f"{training.epochs} epochs, {optimizer.func.__name__}, {arguments}"
