"""ResNet-20 on CIFAR-10 pruned in one shot, then fine-tuned for a few epochs: three seeds.

Optimal-brain-surgeon pruning with repair (1 024 images) beside magnitude pruning, with the same fine-tuning:
SGD with momentum from a learning rate of 0.02 that falls linearly, crops and flips, products in bfloat16.
Accuracy of the decoded file with every number exact, on all 10 000 test images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import laconic
from benchmarks.cifar import accuracy, drawn, fine_tune, resnet20
from benchmarks.common import spread, write_result
from laconic import Count, Pruner, Run
from laconic.pruning.contests import Budget

SEEDS = (0, 1, 2)
N_IMAGES, LEARNING_RATE = 1024, 0.02
TARGETS = {"80% sparse": (0.8, 3), "90% sparse": (0.9, 6), "2:4": (0.5, 3)}  # amount, epochs
METHODS = {
    "OBS by output error, repaired": Pruner(laconic.output_error, solver=laconic.LeastSquares()),
    "magnitude": Pruner(),
}


def two_of_four(density: float) -> Budget:
    """2:4, whatever the density."""
    return Count(2)


def pruner_for(method: str, target: str) -> Pruner:
    chosen = METHODS[method]
    if target != "2:4":
        return chosen
    but_the_first = partial(laconic.tensors, exclude=["conv1"])  # it has three inputs
    return Pruner(
        chosen.criterion, scope=Run(4), budget=two_of_four, solver=chosen.solver, among=but_the_first
    )


def run(method: str, target: str, seed: int) -> dict[str, float]:
    amount, epochs = TARGETS[target]
    pruner = pruner_for(method, target)
    model = resnet20()
    evidence = laconic.observe(model, drawn(seed, N_IMAGES).batches(64), pruner.needs)
    mask = laconic.prune_(model, amount, pruner, evidence)
    before = accuracy(model)
    fine_tune(model, epochs, LEARNING_RATE, seed, [laconic.Hold(mask)])
    with tempfile.TemporaryDirectory() as folder:
        laconic.save(model, Path(folder) / "model.lac", None)
        decoded = laconic.load(Path(folder) / "model.lac", into=resnet20())
    row = {"epochs": epochs, "sparsity": mask.sparsity, "before": before, "accuracy": accuracy(decoded)}
    print(method, target, seed, row, flush=True)
    return row


def table_of(run: Callable[[str, str, int], dict[str, float]]) -> dict[str, dict[str, dict[str, object]]]:
    table: dict[str, dict[str, dict[str, object]]] = {}
    for method in METHODS:
        for target in TARGETS:
            runs = [run(method, target, seed) for seed in SEEDS]
            table.setdefault(method, {})[target] = {key: spread(r[key] for r in runs) for key in runs[0]}
    return table


def main() -> None:
    torch.set_num_threads(2)
    results = table_of(run)
    write_result(__file__, {"seeds": SEEDS, "learning_rate": LEARNING_RATE, "methods": results})


if __name__ == "__main__":
    main()
