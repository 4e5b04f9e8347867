"""Iterative magnitude pruning to 90 %, then a quantised file: digits and MNIST, three seeds.

All accuracies are of decoded files, on the test set: the dense and pruned ones from files with every number
exact, the last from the quantised file whose size is given.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import nn

import laconic
from benchmarks.common import spreads, write_result
from laconic.cli.demo import EXPERIMENTS
from laconic.datasets import Dataset
from laconic.training import Schedule
from laconic.training.schedules import geometric

SEEDS = (0, 1, 2)
SPARSITY, ROUNDS = 0.9, 5
GRID = laconic.quantization.Grid(0.1)


def decoded_accuracy(
    model: nn.Module, data: Dataset, quantizer: laconic.quantization.Grid | None
) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lac"
        n_bytes = laconic.save(model, path, quantizer)
        decoded = laconic.load(path, into=copy.deepcopy(model))
    return laconic.evaluate(decoded, data.test.batches(4096)).accuracy, n_bytes


def run(name: str, seed: int) -> dict[str, float]:
    experiment = EXPERIMENTS[name].seeded(seed)
    data = experiment.data()
    torch.manual_seed(seed)
    model = experiment.network()
    batches = data.train.batches(experiment.batch_size, shuffle=True)
    laconic.train(model, batches, experiment.dense)
    dense, _ = decoded_accuracy(model, data, None)

    def fine_tune(model: nn.Module, mask: laconic.pruning.Mask) -> None:
        laconic.train(model, batches, experiment.fine_tuning, [laconic.training.Hold(mask)])

    *_, last = laconic.training.prune_iteratively_(model, Schedule(SPARSITY, ROUNDS, geometric), fine_tune)
    pruned, _ = decoded_accuracy(model, data, None)
    quantised, n_bytes = decoded_accuracy(model, data, GRID)
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


def main() -> None:
    torch.set_num_threads(1)
    results = {}
    for name in ("digits", "mnist"):
        runs = [run(name, seed) for seed in SEEDS]
        results[name] = spreads(runs)
    write_result(__file__, {"seeds": SEEDS, "relative_error": GRID.relative_error, **results})


if __name__ == "__main__":
    main()
