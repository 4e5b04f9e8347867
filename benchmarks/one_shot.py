"""ResNet-20 on CIFAR-10 pruned in one shot, without fine-tuning, from 1 024 training images.

Three draws of images. Each method is measured as it leaves the network, and again after its batch norms'
statistics are estimated anew on the same images. Test accuracy of all 10 000 images.
"""

from __future__ import annotations

import copy
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import nn

import laconic
from benchmarks.cifar import accuracy, drawn, resnet20
from benchmarks.common import once, spread, write_result
from laconic import Pruner, Row, Tensor
from laconic.datasets import Split
from laconic.evidence import FISHER, GRADIENT, GRAM, NORM, SENSITIVITY, Evidence, observe, sampled_labels

SEEDS = (0, 1, 2)
AMOUNTS = (0.5, 0.6, 0.7, 0.8)
N_IMAGES = 1024


def methods(seed: int) -> dict[str, Pruner]:
    repair = laconic.LeastSquares()
    return {
        "random": Pruner(laconic.random(seed), scope=Tensor()),
        "magnitude": Pruner(),
        "LAMP": Pruner(laconic.lamp),
        "Wanda": Pruner(laconic.wanda, scope=Row()),
        "Taylor": Pruner(laconic.taylor),
        "Fisher (OBD)": Pruner(laconic.fisher),
        "magnitude, repaired": Pruner(solver=repair),
        "SparseGPT": Pruner(scope=Tensor(), solver=laconic.SparseGpt()),
        "SparseGPT, rates by output error": Pruner(laconic.output_error, solver=laconic.SparseGpt()),
        "OBS in bits, repaired": Pruner(laconic.obs, solver=repair),
        "OBS by output error, repaired": Pruner(laconic.output_error, solver=repair),
    }


def gathered(model: nn.Module, images: Split) -> Evidence:
    """Everything that the methods need; the outputs' sensitivity with the model's own labels."""
    batches = images.batches(64)
    seen = observe(model, batches, [GRADIENT, FISHER, GRAM, NORM])
    own = observe(model, batches, [SENSITIVITY], sampled_labels)
    return Evidence(seen.n, {**seen.found, **own.found})


def run(seed: int) -> dict[str, dict[str, float]]:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dense = resnet20()
    images = drawn(seed, N_IMAGES)
    evidence = gathered(dense, images)
    rows: dict[str, dict[str, float]] = {}
    for name, pruner in methods(seed).items():
        for amount in AMOUNTS:
            model = copy.deepcopy(dense)
            laconic.prune_(model, amount, pruner, evidence)
            as_is = accuracy(model)
            laconic.reestimate_batch_norm_(model, images.batches(256))
            reestimated = accuracy(model)
            rows.setdefault(name, {})[f"{amount:.0%}"] = as_is
            rows.setdefault(f"{name}; batch norms re-estimated", {})[f"{amount:.0%}"] = reestimated
            print(seed, name, amount, as_is, reestimated, flush=True)
    return rows


def run_once(seed: int) -> dict[str, dict[str, float]]:
    return once(__file__, run, seed)


def main() -> None:
    with ProcessPoolExecutor(2) as processes:
        runs = list(processes.map(run_once, SEEDS))
    table = {
        name: {amount: spread(r[name][amount] for r in runs) for amount in runs[0][name]} for name in runs[0]
    }
    result = {"seeds": SEEDS, "images": N_IMAGES, "dense_accuracy": accuracy(resnet20()), "methods": table}
    write_result(__file__, result)


if __name__ == "__main__":
    main()
