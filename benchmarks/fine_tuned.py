"""ResNet-20 on CIFAR-10 pruned with repair (1 024 images), then fine-tuned for a few epochs: three seeds.

Training is by distillation on crops and flips, with momentum, at a rate that falls to zero step by step.
Towards 90 %, four fifths go at once, with repair, half of the rest gradually, by magnitude, in the first half
of training. Accuracy of the decoded file with every number exact, on all 10 000 test images.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import laconic
from benchmarks.cifar import accuracy, crops, drawn, fine_tune, resnet20
from benchmarks.common import once, spreads, write_result
from laconic.pruning import Mask, Pruner
from laconic.pruning.budgets import Count
from laconic.pruning.scopes import NM, Budget
from laconic.training import Gradual, Hold, Rule, Schedule

SEEDS = (0, 1, 2)
N_IMAGES, BATCH = 1024, 64
REPAIRED = Pruner(laconic.pruning.criteria.output_error, solver=laconic.pruning.solvers.LeastSquares())


@dataclass(frozen=True)
class Target:
    """How much goes at once, how the network is trained then, and how much goes meanwhile."""

    epochs: int
    learning_rate: float
    amount: float
    pruner: Pruner = REPAIRED
    last: float | None = None

    def rule(self, mask: Mask) -> Rule:
        """What acts while the network is trained."""
        if self.last is None:
            return Hold(mask)
        n_steps = self.epochs * math.ceil(50_000 / BATCH)
        return Gradual(Schedule(self.last, n_steps // 2, initial=self.amount), every=100)


def two_of_four(density: float) -> Budget:
    """2:4, whatever the density."""
    return Count(2)


TARGETS = {
    "2:4": Target(
        1,
        0.01,
        0.5,
        Pruner(
            laconic.pruning.criteria.output_error,
            scope=NM(4),
            budget=two_of_four,
            solver=laconic.pruning.solvers.LeastSquares(),
            parameters=partial(laconic.model.compressible, exclude=["conv1"]),  # it has three inputs
        ),
    ),
    "80% sparse": Target(8, 0.01, 0.8),
    "90% sparse": Target(10, 0.05, 0.8, last=0.9),
}


def run(name: str, seed: int) -> dict[str, float]:
    target = TARGETS[name]
    model = resnet20()
    evidence = laconic.model.observe(model, drawn(seed, N_IMAGES).batches(64), target.pruner.needs)
    mask = laconic.prune_(model, target.amount, target.pruner, evidence)
    before = accuracy(model)
    fine_tune(model, target.epochs, target.learning_rate, crops(BATCH), seed, [target.rule(mask)])
    with tempfile.TemporaryDirectory() as folder:
        laconic.save(model, Path(folder) / "model.lac", None)
        decoded = laconic.load(Path(folder) / "model.lac", into=resnet20())
    chosen = target.pruner.parameters(decoded)
    zeros = sum(int((weight == 0).sum()) for weight in chosen.values())
    return {
        "epochs": target.epochs,
        "learning_rate": target.learning_rate,
        "sparsity": zeros / sum(weight.numel() for weight in chosen.values()),
        "before": before,
        "accuracy": accuracy(decoded),
    }


def main(seeds: Sequence[int] = SEEDS) -> None:
    runs = {name: [] for name in TARGETS}
    for seed in seeds:
        for name in TARGETS:
            runs[name].append(once(__file__, run, name, seed))
    results = {name: spreads(rows) for name, rows in runs.items()}
    write_result(__file__, {"seeds": seeds, "images": N_IMAGES, "targets": results})


if __name__ == "__main__":
    main()
