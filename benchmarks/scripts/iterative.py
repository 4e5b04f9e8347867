"""Iterative magnitude pruning to 90 %, then a quantised file: digits and MNIST, three seeds.

All accuracies are of decoded files, on the test set: the dense and pruned ones from files with every number
exact, the last from the quantised file whose size is given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.decoded import decoded
from benchmarks.record_keeping import spreads, write_result
from laconic import Training, zoo
from laconic.datasets import Dataset, digits, mnist
from laconic.pruning import Mask
from laconic.quantization import Grid
from laconic.training import Hold, Schedule, prune_iteratively_
from laconic.training.schedules import geometric

SEEDS = (0, 1, 2)
SPARSITY, ROUNDS = 0.9, 5
GRID = Grid(0.1)


@dataclass(frozen=True)
class Task:
    """Data, a network, and how long it is trained, and fine-tuned in each round."""

    data: Callable[[], Dataset]
    n_inputs: int
    batch: int
    epochs: int
    tuning_epochs: int
    rate_falls: bool

    def training(self, epochs: int, seed: int) -> Training:
        """With Adam."""
        scheduler = partial(CosineAnnealingLR, T_max=epochs) if self.rate_falls else None
        return Training(epochs, partial(Adam, lr=1e-3), scheduler=scheduler, seed=seed)


TASKS = {
    "digits": Task(digits, 64, 64, epochs=40, tuning_epochs=20, rate_falls=False),
    "mnist": Task(mnist, 784, 128, epochs=10, tuning_epochs=4, rate_falls=True),
}


def run(name: str, seed: int) -> dict[str, float]:
    task = TASKS[name]
    data = task.data()
    torch.manual_seed(seed)
    model = zoo.lenet_300_100(task.n_inputs)
    batches = data.train.batches(task.batch, shuffle=True)

    def accuracy(quantizer: Grid | None = None) -> tuple[float, int]:
        network, n_bytes = decoded(model, copy.deepcopy(model), quantizer)
        return laconic.evaluate(network, data.test.batches(4096)).accuracy, n_bytes

    def fine_tune(model: nn.Module, mask: Mask) -> None:
        laconic.train(model, batches, task.training(task.tuning_epochs, seed + 1), [Hold(mask)])

    laconic.train(model, batches, task.training(task.epochs, seed))
    dense, _ = accuracy()
    *_, last = prune_iteratively_(model, Schedule(SPARSITY, ROUNDS, geometric), fine_tune)
    pruned, _ = accuracy()
    quantised, n_bytes = accuracy(GRID)
    float_bytes = 4 * sum(tensor.numel() for tensor in model.state_dict().values())
    return {
        "dense_accuracy": dense,
        "pruned_accuracy": pruned,
        "points_lost_by_pruning": 100 * (dense - pruned),
        "quantised_accuracy": quantised,
        "points_lost_by_quantising": 100 * (pruned - quantised),
        "sparsity": last.mask.sparsity,
        "file_bytes": n_bytes,
        "times_smaller_than_float32": float_bytes / n_bytes,
    }


def main(seeds: Sequence[int]) -> None:
    torch.set_num_threads(1)
    results = {name: spreads(run(name, seed) for seed in seeds) for name in TASKS}
    write_result(__file__, {"seeds": seeds, "relative_error": GRID.relative_error, **results})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
