"""ResNet-20 on CIFAR-10 pruned in one shot, without fine-tuning, from 1 024 training images.

Three draws of images. Each method is measured as it leaves the network, and again after its batch norms'
statistics are estimated anew on the same images. Test accuracy of all 10 000 images.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import torch
from torch import nn

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.cifar import accuracy, drawn, resnet20
from benchmarks.record_keeping import once, spread, write_result
from laconic.datasets import Split
from laconic.model import Evidence, Objective, Statistic, observe, sampled_labels
from laconic.pruning import Pruner, criteria
from laconic.pruning.scopes import PerRow, PerTensor
from laconic.pruning.solvers import LeastSquares, SparseGPT

SEEDS = (0, 1, 2)
AMOUNTS = (0.5, 0.6, 0.7, 0.8)
N_IMAGES = 1024
AGAIN = "; batch norms re-estimated"


def methods(seed: int) -> dict[str, Pruner]:
    repair = LeastSquares()
    return {
        "random": Pruner(criteria.random(seed), scope=PerTensor()),
        "magnitude": Pruner(),
        "LAMP": Pruner(criteria.lamp),
        "Wanda": Pruner(criteria.wanda, scope=PerRow()),
        "Taylor": Pruner(criteria.taylor),
        "Fisher (OBD)": Pruner(criteria.fisher),
        "magnitude, repaired": Pruner(solver=repair),
        "SparseGPT": Pruner(scope=PerTensor(), solver=SparseGPT()),
        "SparseGPT, rates by output error": Pruner(criteria.output_error, solver=SparseGPT()),
        "OBS in bits, repaired": Pruner(criteria.obs, solver=repair),
        "OBS by output error, repaired": Pruner(criteria.output_error, solver=repair),
    }


def gathered(model: nn.Module, images: Split) -> Evidence:
    """Everything that the methods need; the outputs' sensitivity with the model's own labels."""
    batches = images.batches(64)
    needs = [Statistic.GRADIENT, Statistic.FISHER, Statistic.GRAM, Statistic.NORM]
    seen = observe(model, batches, needs)
    own = observe(model, batches, [Statistic.SENSITIVITY], Objective(sampled_labels))
    return Evidence(seen.n, {**seen.found, **own.found})


@cache
def begun(seed: int) -> tuple[nn.Module, Split, Evidence]:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dense, images = resnet20(), drawn(seed, N_IMAGES)
    return dense, images, gathered(dense, images)


def run(seed: int, name: str) -> dict[str, dict[str, float]]:
    """Accuracies by amount, as the method leaves the network and with batch norms re-estimated."""
    dense, images, evidence = begun(seed)
    rows: dict[str, dict[str, float]] = {name: {}, f"{name}{AGAIN}": {}}
    for amount in AMOUNTS:
        model = copy.deepcopy(dense)
        methods(seed)[name].at(amount).prune_(model, evidence)
        rows[name][f"{amount:.0%}"] = accuracy(model)
        laconic.surgery.reestimate_batch_norm_(model, images.batches(256))
        rows[f"{name}{AGAIN}"][f"{amount:.0%}"] = accuracy(model)
    return rows


def run_once(of: tuple[int, str]) -> dict[str, dict[str, float]]:
    return once(__file__, run, *of)


def main(seeds: Sequence[int]) -> None:
    names = list(methods(0))
    with ProcessPoolExecutor(2) as processes:
        found = list(processes.map(run_once, [(seed, name) for seed in seeds for name in names]))
    runs = [
        {row: accuracies for of in found[i : i + len(names)] for row, accuracies in of.items()}
        for i in range(0, len(found), len(names))
    ]
    table = {name: {amount: spread(r[name][amount] for r in runs) for amount in runs[0][name]} for name in runs[0]}
    result = {"seeds": seeds, "images": N_IMAGES, "dense_accuracy": accuracy(resnet20()), "methods": table}
    write_result(__file__, result)


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
