"""LeNet-300-100 on MNIST trained sparse in every way: one table, three seeds.

Lottery tickets with their controls, sparse from the start (static, SET, RigL), L0 gates, sparse variational
dropout, gradual pruning and a proximal penalty, beside the dense network. Hyperparameters were chosen on the
last 10 000 training examples; here all 60 000 are trained on, and the test set is read once, from decoded
files with every number exact. Takes three quarters of an hour on two cores.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.decoded import decoded
from benchmarks.record_keeping import spreads, write_result
from laconic import zoo
from laconic.datasets import mnist
from laconic.training import Schedule

SEEDS = (0, 1, 2)
BATCH, N_EXAMPLES = 128, 60_000
STEPS = -(-N_EXAMPLES // BATCH)  # an epoch
TICKET_ROUNDS, TICKET_EPOCHS, SPARSE_EPOCHS = 15, 4, 15


@dataclass(frozen=True)
class Bench:
    """Data and a fresh network of a seed."""

    seed: int

    def model(self) -> nn.Module:
        """A network with the seed's weights."""
        torch.manual_seed(self.seed)
        return zoo.lenet_300_100()

    def train(self, model: nn.Module, epochs: int, lr: float, rules: Sequence[laconic.training.Rule] = ()) -> None:
        """Train `model`, at a constant rate for the first half of the epochs, then linearly to zero."""

        def late(epoch: int) -> float:
            return min(1.0, 2 * (epochs - epoch) / epochs)

        training = laconic.Training(
            epochs, partial(torch.optim.Adam, lr=lr), scheduler=partial(LambdaLR, lr_lambda=late), seed=self.seed
        )
        laconic.train(model, mnist().train.batches(BATCH, shuffle=True), training, rules)


Named = Iterator[tuple[str, nn.Module]]


def dense(bench: Bench) -> Named:
    for epochs in (TICKET_EPOCHS, SPARSE_EPOCHS):
        model = bench.model()
        bench.train(model, epochs, 1.2e-3)
        yield f"dense, {epochs} epochs", model


def lottery(bench: Bench) -> Named:
    model = bench.model()
    start = copy.deepcopy(model.state_dict())
    fit = partial(bench.train, epochs=TICKET_EPOCHS, lr=1.2e-3)
    fit(model)
    schedule = Schedule(1 - 0.8**TICKET_ROUNDS, TICKET_ROUNDS, laconic.training.schedules.geometric)
    for done in laconic.training.prune_iteratively_(
        model, schedule, lambda model, mask: fit(model, rules=[laconic.training.Hold(mask)]), rewind=start
    ):
        if done.number == TICKET_ROUNDS:
            yield "lottery ticket", model
            for name, mask in {
                "re-initialised": done.mask,
                "layer-shuffled": laconic.training.shuffled(done.mask),
            }.items():
                control = bench.model()
                if name == "re-initialised":
                    laconic.training.reinitialize_(control, seed=100 + bench.seed)
                fit(control, rules=[laconic.training.Hold(mask)])
                yield f"lottery ticket, {name}", control


def sparse_from_the_start(bench: Bench, sparsity: float) -> Named:
    moves = Schedule(0.0, int(0.75 * SPARSE_EPOCHS * STEPS), laconic.training.schedules.cosine, initial=0.3)
    at_random = laconic.pruning.Pruner(
        laconic.pruning.criteria.random(bench.seed),
        scope=laconic.pruning.scopes.PerTensor(),
        budget=laconic.pruning.budgets.Erk(),
    )
    for name in ("static", "SET", "RigL"):
        model = bench.model()
        mask = at_random.at(sparsity).mask(model)
        growth = laconic.training.AtRandom(bench.seed) if name == "SET" else laconic.training.ByGradient()
        moving = laconic.training.DropAndGrow(mask, moves, growth, every=50)
        bench.train(model, SPARSE_EPOCHS, 2e-3, [laconic.training.Hold(mask) if name == "static" else moving])
        yield f"{name}, {sparsity:.0%} sparse", model


def gates(bench: Bench) -> Named:
    for name, unit, penalty in (
        ("weights", laconic.pruning.units.Weight(), 1.0),
        ("inputs", laconic.pruning.units.Block(None, 1), 0.2),
    ):
        model = bench.model()
        rule = laconic.training.Gates(penalty, N_EXAMPLES, unit, lr=1e-2, seed=bench.seed)
        bench.train(model, SPARSE_EPOCHS, 1e-3, [rule])
        yield f"L0 gates on {name}, penalty {penalty}", model


def variational(bench: Bench) -> Named:
    model = bench.model()
    warm_up = Schedule(1.0, 6 * STEPS, laconic.training.schedules.linear)
    rule = laconic.training.VariationalDropout(N_EXAMPLES, warm_up, initial=-8.0, lr=2e-3, seed=bench.seed)
    bench.train(model, 12, 1e-3, [rule])
    mask = laconic.pruning.Mask({name: weight != 0 for name, weight in laconic.model.compressible(model).items()})
    bench.train(model, 4, 1e-3, [laconic.training.Hold(mask)])
    yield "sparse variational dropout", model


def gradual(bench: Bench) -> Named:
    for sparsity in (0.95, 0.98):
        model = bench.model()
        ramp = Schedule(sparsity, int(0.6 * SPARSE_EPOCHS * STEPS), begin=STEPS)
        bench.train(model, SPARSE_EPOCHS, 2e-3, [laconic.training.Gradual(ramp)])
        yield f"gradual magnitude, {sparsity:.0%} sparse", model


def proximal(bench: Bench) -> Named:
    model = bench.model()
    bench.train(model, SPARSE_EPOCHS, 1e-3, [laconic.training.Proximal(0.1)])
    yield "proximal L1, penalty 0.1", model


METHODS: dict[str, Callable[[Bench], Named]] = {
    "lottery": lottery,
    "95": partial(sparse_from_the_start, sparsity=0.95),
    "98": partial(sparse_from_the_start, sparsity=0.98),
    "gates": gates,
    "variational": variational,
    "gradual": gradual,
    "proximal": proximal,
    "dense": dense,
}


def measured(method: str, seed: int) -> dict[str, dict[str, float]]:
    """Of every network that a method yields: test accuracy of the decoded file, sparsity, seconds."""
    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    began = time.perf_counter()
    for name, model in METHODS[method](Bench(seed)):
        seconds = time.perf_counter() - began
        network, _ = decoded(model, zoo.lenet_300_100())
        code = laconic.evaluate(network, mnist().test.batches(2000))
        weights = laconic.model.compressible(network).values()
        n_zero = sum(int((weight == 0).sum()) for weight in weights)
        rows[name] = {
            "test_accuracy": code.accuracy,
            "sparsity": n_zero / sum(weight.numel() for weight in weights),
            "seconds": seconds,
        }
        began = time.perf_counter()
    return rows


def main(seeds: Sequence[int]) -> None:
    jobs = list(product(METHODS, seeds))
    with ProcessPoolExecutor(2) as processes:
        done = list(processes.map(measured, *zip(*jobs, strict=True)))
    by_name: dict[str, list[dict[str, float]]] = {}
    for rows in done:
        for name, row in rows.items():
            by_name.setdefault(name, []).append(row)
    table = {name: spreads(runs) for name, runs in by_name.items()}
    write_result(__file__, {"seeds": seeds, "epochs": SPARSE_EPOCHS, "batch": BATCH, "networks": table})


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
