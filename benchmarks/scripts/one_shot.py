"""ResNet-20 on CIFAR-10 pruned in one shot, without fine-tuning, from 1 024 training images.

Three draws of images. Each method is measured as it leaves the network, and again after its batch norms'
statistics are estimated anew on these images: clean, or as in training, which is cropped and flipped at random
with black borders. So is the dense network, also with borders of the mean colour. Layers' inputs are observed
on the clean images, gradients on images as in training: the network is right about nearly all clean images
that it was trained on, so that the loss has hardly a gradient there. Test accuracy of all 10 000 images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor, nn

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.cifar import MEAN_COLOUR, accuracy, as_in_training, drawn, resnet20
from benchmarks.record_keeping import once, spreads, write_result
from laconic.datasets import Split
from laconic.model import Evidence, Objective, Statistic, observe, sampled_labels
from laconic.pruning import Pruner, criteria
from laconic.pruning.scopes import PerRow, PerTensor
from laconic.pruning.solvers import LeastSquares, SparseGPT

Images: TypeAlias = Iterable[tuple[Tensor, Tensor]]
SEEDS = (0, 1, 2)
AMOUNTS = (0.5, 0.6, 0.7, 0.8)
N_IMAGES = 1024
AGAIN = "; batch norms re-estimated on {}"
BATCH = 256


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
    clean, cropped = images.batches(64), as_in_training(images, 64)
    layers = observe(model, clean, [Statistic.GRAM, Statistic.NORM])
    labels = observe(model, cropped, [Statistic.GRADIENT, Statistic.FISHER])
    own = observe(model, cropped, [Statistic.SENSITIVITY], Objective(sampled_labels))
    return Evidence(layers.n, {**layers.found, **labels.found, **own.found})


@cache
def begun(seed: int) -> tuple[nn.Module, Split, Evidence]:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dense, images = resnet20(), drawn(seed, N_IMAGES)
    return dense, images, gathered(dense, images)


def kinds(images: Split) -> dict[str, Images]:
    """What batch norms are estimated on."""
    return {"clean images": images.batches(BATCH), "images as in training": as_in_training(images, BATCH)}


def run(seed: int, name: str) -> dict[str, dict[str, float]]:
    """Accuracies by amount, as the method leaves the network and with batch norms re-estimated."""
    dense, images, evidence = begun(seed)
    rows: dict[str, dict[str, float]] = {name: {}, **{name + AGAIN.format(kind): {} for kind in kinds(images)}}
    for amount in AMOUNTS:
        model = copy.deepcopy(dense)
        methods(seed)[name].at(amount).prune_(model, evidence)
        rows[name][f"{amount:.0%}"] = accuracy(model)
        for kind, batches in kinds(images).items():
            rows[name + AGAIN.format(kind)][f"{amount:.0%}"] = reestimated(model, batches, seed)
    return rows


def reestimated(model: nn.Module, batches: Images, seed: int) -> float:
    """The accuracy once batch norms have the statistics of some images."""
    torch.manual_seed(seed)  # crops do not depend on what ran before
    laconic.surgery.reestimate_batch_norm_(model, batches)
    return accuracy(model)


def run_dense(seed: int) -> dict[str, float]:
    """The dense network's accuracies by the images that its batch norms are estimated on."""
    dense, images = resnet20(), drawn(seed, N_IMAGES)
    coloured = {"the same with borders of the mean colour": as_in_training(images, BATCH, MEAN_COLOUR)}
    found = {"none, as it was trained": accuracy(dense)}
    return found | {kind: reestimated(dense, of, seed) for kind, of in {**kinds(images), **coloured}.items()}


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
    table = {name: spreads(r[name] for r in runs) for name in runs[0]}
    dense = spreads(once(__file__, run_dense, seed) for seed in seeds)
    write_result(__file__, {"seeds": seeds, "images": N_IMAGES, "dense": dense, "methods": table})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
