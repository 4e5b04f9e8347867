"""ResNet-20 on CIFAR-10 pruned with repair (1 024 images), then fine-tuned for a few epochs: three seeds.

Training is by distillation on crops and flips, with momentum, at a rate that falls to zero step by step.
Towards 90 %, four fifths go at once, with repair, half of the rest gradually, by magnitude, in the first half
of training. Accuracy of the decoded file with every number exact, on all 10 000 test images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.cifar import accuracy, crops, drawn, fine_tune, resnet20
from benchmarks.networks.decoded import decoded
from benchmarks.record_keeping import once, spreads, write_result
from laconic.pruning import Mask, Pruner
from laconic.pruning.criteria import output_error
from laconic.pruning.scopes import NM
from laconic.pruning.solvers import LeastSquares
from laconic.training import Gradual, Hold, Rule, Schedule

SEEDS = (0, 1, 2)
N_IMAGES, BATCH = 1024, 64
REPAIRED = Pruner(output_error, solver=LeastSquares())
NOT_THE_FIRST = partial(laconic.model.compressible, exclude=["conv1"])  # it has three inputs


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


TARGETS = {
    "2:4": Target(1, 0.01, 0.5, replace(REPAIRED, scope=NM(4), parameters=NOT_THE_FIRST)),
    "80% sparse": Target(8, 0.01, 0.8),
    "90% sparse": Target(10, 0.05, 0.8, last=0.9),
}


def run(name: str, seed: int) -> dict[str, float]:
    target = TARGETS[name]
    model = resnet20()
    evidence = laconic.model.observe(model, drawn(seed, N_IMAGES).batches(64), target.pruner.needs)
    mask = target.pruner.at(target.amount).prune_(model, evidence)
    before = accuracy(model)
    fine_tune(model, target.epochs, target.learning_rate, crops(BATCH), seed, [target.rule(mask)])
    network, _ = decoded(model, resnet20())
    chosen = target.pruner.parameters(network)
    zeros = sum(int((weight == 0).sum()) for weight in chosen.values())
    return {
        "epochs": target.epochs,
        "learning_rate": target.learning_rate,
        "sparsity": zeros / sum(weight.numel() for weight in chosen.values()),
        "before": before,
        "accuracy": accuracy(network),
    }


def main(seeds: Sequence[int]) -> None:
    results = {name: spreads(once(__file__, run, name, seed) for seed in seeds) for name in TARGETS}
    write_result(__file__, {"seeds": seeds, "images": N_IMAGES, "targets": results})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
