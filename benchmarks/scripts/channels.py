"""ResNet-20 on CIFAR-10 cut to half its multiply-adds by channels, then fine-tuned: three seeds.

Ours picks by the error that the next layer's output keeps when its other inputs make up for a channel's
loss, from 1 024 images; torch-pruning's own magnitude pruner cuts the same network beside it. Both cut
the channels inside the residual blocks (the checkpoint's shortcuts pad with a fixed number of channels,
so the stream cannot be cut), at the same rates, and are fine-tuned alike. Times are of the cut networks
and the dense one in turn, in the same process.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.cifar import accuracy, crops, drawn, fine_tune, resnet20
from benchmarks.networks.decoded import decoded
from benchmarks.record_keeping import once, spreads, write_result
from laconic.pruning import Pruner
from laconic.pruning.budgets import Rates
from laconic.pruning.scopes import PerTensor
from laconic.pruning.units import Coupled
from laconic.surgery import Plan
from laconic.zoo import BasicBlock

SEEDS = (0, 1, 2)
N_IMAGES = 1024
EPOCHS, BATCH, LEARNING_RATE = 10, 128, 0.05
# What stays of a block's channels; of all others, half. Chosen by how far the outputs for 4 000 images of the
# training set move; widths are multiples of 4, which convolutions are fast with. The peer's are the same.
RATES = {"layer1.0": 0.25, "layer3.0": 0.75}
OTHERWISE = 0.5
REPETITIONS = 60


def ours(seed: int) -> nn.Module:
    """Cut, saved with its plan, and read back into the dense network."""
    model, images = resnet20(), drawn(seed, N_IMAGES)
    coupling = laconic.surgery.find_channels(model, images.inputs[:2])
    pruner = Pruner(
        laconic.pruning.criteria.output_error,
        Coupled(coupling),
        PerTensor(),
        Rates(RATES, OTHERWISE),
        laconic.pruning.solvers.LeastSquares(),
    )
    evidence = laconic.model.observe(model, images.batches(64), pruner.needs)
    plan = Plan.of(coupling, pruner.prune_(model, evidence), model)
    laconic.surgery.shrink_(model, plan, inputs=images.inputs[:2])
    laconic.surgery.reestimate_batch_norm_(model, images.batches(256))
    return decoded(model, resnet20(), plan=plan)[0]


def torch_pruning(seed: int) -> nn.Module:
    """Its magnitude pruner (L2), with the same rates and the same layers left alone."""
    import torch_pruning as tp

    model, images = resnet20(), drawn(seed, N_IMAGES)
    blocks = {name: block for name, block in model.named_modules() if isinstance(block, BasicBlock)}
    own: dict[Any, float] = {block.conv1: 1 - RATES.get(name, OTHERWISE) for name, block in blocks.items()}
    pruner = tp.pruner.MagnitudePruner(
        model,
        images.inputs[:2],
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=1 - OTHERWISE,
        pruning_ratio_dict=own,
        ignored_layers=[model.conv1, model.linear, *(block.conv2 for block in blocks.values())],
    )
    pruner.step()
    laconic.surgery.reestimate_batch_norm_(model, images.batches(256))
    return model


METHODS: dict[str, Callable[[int], nn.Module]] = {
    "channels by output error, repaired": ours,
    "torch-pruning, magnitude": torch_pruning,
}


def n_macs(model: nn.Module) -> float:
    each = laconic.surgery.count_macs(model, torch.zeros(1, 3, 32, 32))
    return sum(each[name] * weight.numel() for name, weight in laconic.model.compressible(model).items())


def times_faster(model: nn.Module, dense: nn.Module, batch: int) -> float:
    """The median over pairs of runs, taken in turn."""
    images = torch.randn(batch, 3, 32, 32)
    ratios: list[float] = []
    with torch.inference_mode():
        for _ in range(REPETITIONS):
            seconds = [_seconds(network, images) for network in (dense, model)]
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def _seconds(model: nn.Module, images: torch.Tensor) -> float:
    began = time.perf_counter()
    for _ in range(max(1, 64 // len(images))):
        model(images)
    return time.perf_counter() - began


def trained(method: str, seed: int) -> dict[str, float]:
    """Cut and fine-tuned; the result is kept for the timing."""
    dense, model = resnet20(), METHODS[method](seed)
    before = accuracy(model)
    fine_tune(model, EPOCHS, LEARNING_RATE, crops(BATCH), seed)
    return {
        "before": before,
        "accuracy": accuracy(model),
        "share_of_macs": n_macs(model) / n_macs(dense),
        "share_of_parameters": _size(model) / _size(dense),
    }


def run(method: str, seed: int) -> dict[str, float]:
    dense, model = resnet20(), METHODS[method](seed).eval()  # times do not depend on the training
    return once(__file__, trained, method, seed) | {
        "times_faster_batch_64": times_faster(model, copy.deepcopy(dense), 64),
        "times_faster_batch_1": times_faster(model, copy.deepcopy(dense), 1),
    }


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def main(seeds: Sequence[int]) -> None:
    torch.set_num_threads(2)
    table = {method: spreads(run(method, seed) for seed in seeds) for method in METHODS}
    choices = {"seeds": seeds, "epochs": EPOCHS, "batch": BATCH, "learning_rate": LEARNING_RATE, "threads": 2}
    write_result(__file__, {**choices, "methods": table})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
