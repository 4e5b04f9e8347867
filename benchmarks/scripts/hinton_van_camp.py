"""Hinton & van Camp's experiment (1993) on data like theirs, which were never published.

BACE inhibitors: 1 522 molecules, descriptors of their structure, and how strongly they bind (pIC50). Each
draw has 105 examples to train on, 420 to test, and 128 descriptors; everything is scaled by the training
examples' means and deviations. A network 128-4-1 of logistic hidden units is trained on its exact expected
cost, N/2·log ⟨E⟩/N nats for the data and Ĝ for each weight, whose coefficient grows to 1 as in the paper, or
is 1 from the start. Beside it stands what the paper compares it with. All that is chosen is chosen within the
105 examples; the 420 are looked at once.

Needs ``LACONIC_DATA``, with ``tabular/bace_canvas.csv`` (from MoleculeNet, MIT).
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.command_line import command_line
from benchmarks.experiments.moments import exact, squared_error, through, through_linear
from benchmarks.networks.splits import part
from benchmarks.plots.style import save_figure
from benchmarks.plots.weights_and_prior import figure
from benchmarks.record_keeping import once, spread, write_result
from laconic.datasets import Split
from laconic.mdl import Gaussian, Mixture, bits_back, residual_bits

DRAWS, RUNS, FOLDS = 10, 5, 5
TRAIN, TEST, INPUTS, HIDDEN = 105, 420, 128, 4
AT_ONCE = (1.0, 1.0, 1.0)
ANNEALED = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
UPDATES = 100  # at each coefficient; at the last one, the best of the runs goes on until it gains no more
LEAST_GAIN, MOST_UPDATES = 1e-6, 5000  # nats an update
WIDTH = 0.01  # to which pIC50 is stated
DECAYS = tuple(10.0 ** (half / 2) for half in range(-2, 5))
RIDGES = tuple(10.0 ** (half / 2) for half in range(-2, 11))
NOISY = {"description length, annealed": ANNEALED, "description length, at once": AT_ONCE}
TRIVIAL = "the training examples' mean"
# A descriptor left out: a product that runs from 10³ to 10¹⁷, which no moments of 105 examples scale.
PRODUCT = 380
SHAPES = {"0.weight": (HIDDEN, INPUTS), "0.bias": (HIDDEN,), "2.weight": (1, HIDDEN), "2.bias": (1,)}
N_WEIGHTS = sum(map(math.prod, SHAPES.values()))


@dataclass(frozen=True)
class Draw:
    """Examples to learn from and to be judged by, scaled, and the width of targets in that scale."""

    train: Split
    test: Split
    width: float

    def relative_error(self, outputs: Tensor) -> float:
        """Σ(d − y)²/Σ(d − d̄)² of the test examples."""
        targets = self.test.targets
        return float(((targets - outputs) ** 2).sum() / ((targets - targets.mean()) ** 2).sum())


@cache
def bace() -> tuple[Tensor, Tensor]:
    """Descriptors (molecules, 589) and pIC50 (molecules, 1)."""
    path = Path(os.environ["LACONIC_DATA"]) / "tabular" / "bace_canvas.csv"
    with path.open() as file:
        names, *rows = csv.reader(file)
    first = names.index("pIC50")
    # The last column is the molecule's number in the collection.
    numbers = torch.tensor([[float(x) for x in row[first:-1]] for row in rows], dtype=torch.float64)
    assert names[first + 1 + PRODUCT] == "Superpendentic (SP)"
    return numbers[:, 1:], numbers[:, :1]


def draw(seed: int) -> Draw:
    descriptors, targets = bace()
    random = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(targets), generator=random)[: TRAIN + TEST]
    seen = descriptors[chosen[:TRAIN]]
    varying = torch.nonzero(seen.max(0).values > seen.min(0).values).flatten()
    shuffled = varying[torch.randperm(len(varying), generator=random)]
    columns = shuffled[shuffled != PRODUCT][:INPUTS].sort().values
    scaled = []
    for values in descriptors[chosen][:, columns], targets[chosen]:
        known = values[:TRAIN]
        scaled.append((values - known.mean(0)) / known.std(0, correction=0))
    width = WIDTH / float(targets[chosen[:TRAIN]].std(correction=0))
    whole = Split(*scaled)
    return Draw(part(whole, slice(TRAIN)), part(whole, slice(TRAIN, None)), width)


def network(seed: int, deviation: float = 0.15) -> nn.Sequential:
    """128-4-1 with all weights N(0, deviation)."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Sigmoid(), nn.Linear(HIDDEN, 1)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, deviation)
    return net


def descend(cost: Callable[[], Tensor], parameters: Sequence[Tensor], updates: int, gain: float = 0.0) -> int:
    """Lower `cost` by at most that many updates of L-BFGS, until they gain less than `gain` each."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=10, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cost()
        loss.backward()
        return loss

    before, done = math.inf, 0
    while done < updates:
        after = float(optimizer.step(closure).detach())  # the cost before these ten
        if before - after < 10 * gain:
            break
        before, done = after, done + 10
    return done


@dataclass(frozen=True)
class Noisy:
    """A network of noisy weights in training.

    Attributes:
        values: all that is trained, in one vector: means, log σ², and the prior's three parts.
    """

    values: Tensor

    def weights(self) -> Gaussian:
        """All weights, flat."""
        means, log_variances = self.values[: 2 * N_WEIGHTS].view(2, N_WEIGHTS)
        return Gaussian(means, torch.exp(log_variances))

    def prior(self) -> Mixture:
        """What they are coded under."""
        return Mixture(*self.values[2 * N_WEIGHTS :].view(3, -1))

    def posterior(self) -> dict[str, Gaussian]:
        """The weights by name."""
        flat = self.weights()
        counts = [math.prod(shape) for shape in SHAPES.values()]
        pairs = zip(SHAPES.items(), flat.mean.split(counts), flat.variance.split(counts), strict=True)
        return {name: Gaussian(mean.view(shape), part.view(shape)) for (name, shape), mean, part in pairs}

    def outputs(self, inputs: Tensor) -> Gaussian:
        """Mean and variance over networks of what each example gives."""
        found = list(self.posterior().values())
        hidden = through(torch.sigmoid, through_linear(exact(inputs), *found[:2]))
        return through_linear(hidden, *found[2:])

    def data_error(self, split: Split) -> Tensor:
        """Σ⟨E⟩."""
        return squared_error(self.outputs(split.inputs), split.targets).sum()


def noisy(seed: int) -> Noisy:
    """A network at random, whose weights have the paper's first deviations and prior."""
    means = parameters_to_vector(network(seed).parameters()).detach()
    first = Mixture.evenly_spaced(5, 0.24)
    parts = [means, torch.full_like(means, 2 * math.log(0.1)), first.means, first.log_variances, first.logits]
    return Noisy(torch.cat(parts).requires_grad_())


def cost(net: Noisy, split: Split, coefficient: float) -> Tensor:
    """N/2·log(Σ⟨E⟩/N) + coefficient·Σ Ĝ, nats but for a constant."""
    n = len(split)
    return 0.5 * n * torch.log(net.data_error(split) / n) + coefficient * net.prior().nats(net.weights()).sum()


def trained(seed: int, split: Split, coefficients: Sequence[float]) -> tuple[float, Noisy]:
    """The cost that a network reaches, and the network."""
    net = noisy(seed)
    for coefficient in coefficients:
        descend(partial(cost, net, split, coefficient), [net.values], UPDATES)
    return float(cost(net, split, coefficients[-1]).detach()), net


def described(this: Draw, number: int, coefficients: Sequence[float]) -> dict[str, Any]:
    """The network of the lowest cost of five, in bits."""
    runs = [trained(100 * number + run, this.train, coefficients) for run in range(RUNS)]
    _, net = min(runs, key=lambda run: run[0])
    last = partial(cost, net, this.train, coefficients[-1])
    updates = descend(last, [net.values], MOST_UPDATES, LEAST_GAIN)
    with torch.no_grad():
        plain = network(0)
        means, prior, posterior = net.weights().mean, net.prior(), net.posterior()
        vector_to_parameters(means, plain.parameters())
        error = float(net.data_error(this.train))
        data_bits = residual_bits(error, TRAIN, this.width)
        ledger = bits_back(plain, posterior, dict.fromkeys(posterior, prior), data_bits, TRAIN)
        return {
            "error": this.relative_error(net.outputs(this.test.inputs).mean),
            "error_of_mean_weights": this.relative_error(plain(this.test.inputs)),
            "train_error": error / TRAIN,
            "weight_bits": ledger.by_part()["bits back (expected)"],
            "prior_bits": ledger.by_part()["prior"],
            "data_bits": data_bits,
            "total_bits": ledger.total_bits,
            "cost_nats": float(last()),
            "costs_of_runs": [run[0] for run in runs],
            "last_updates": updates,
            "most_hidden_variance": float(
                through_linear(exact(this.train.inputs), *list(posterior.values())[:2]).variance.max()
            ),
            "weights": means.tolist(),
            "prior": [
                part.tolist()
                for part in (prior.means, torch.exp(prior.log_variances / 2), torch.softmax(prior.logits, 0))
            ],
        }


def decayed(seed: int, split: Split, decay: float) -> tuple[float, nn.Module]:
    """The least of half the squared error and half `decay` times the squared weights that a run finds."""
    net = network(seed)

    def cost() -> Tensor:
        squares = torch.stack([p.square().sum() for p in net.parameters()]).sum()
        return 0.5 * ((net(split.inputs) - split.targets) ** 2).sum() + 0.5 * decay * squares

    descend(cost, list(net.parameters()), 500, LEAST_GAIN)
    return float(cost().detach()), net


def best_decayed(number: int, split: Split, decay: float) -> nn.Module:
    """The network of the lowest cost of five."""
    return min((decayed(100 * number + run, split, decay) for run in range(RUNS)), key=lambda run: run[0])[1]


def ridge(split: Split, penalty: float) -> Callable[[Tensor], Tensor]:
    """Linear regression, all but the constant penalised; without a penalty, of the shortest weights."""
    means = split.inputs.mean(0), split.targets.mean(0)
    x, y = split.inputs - means[0], split.targets - means[1]
    if penalty:
        weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    else:
        weights = torch.linalg.lstsq(x, y, driver="gelsd").solution
    return lambda inputs: (inputs - means[0]) @ weights + means[1]


def folds(split: Split) -> Iterator[tuple[Split, Split]]:
    """What is learnt from and what is left out, in turn."""
    places = torch.arange(len(split))
    for fold in range(FOLDS):
        out = places % FOLDS == fold
        yield part(split, ~out), part(split, out)


def validated(
    split: Split, choices: Sequence[float], fit: Callable[[Split, float], Callable[[Tensor], Tensor]]
) -> float:
    """The choice with the least squared error on examples left out."""

    def error(choice: float) -> float:
        pairs = [(fit(learnt, choice)(out.inputs).detach(), out.targets) for learnt, out in folds(split)]
        return sum(float(((outputs - targets) ** 2).sum()) for outputs, targets in pairs)

    return min(choices, key=error)


def compared(number: int) -> dict[str, Any]:
    """Every method on one draw."""
    torch.set_num_threads(1)
    this = draw(number)
    train, inputs = this.train, this.test.inputs
    decay = validated(train, DECAYS, lambda split, choice: decayed(100 * number, split, choice)[1])
    penalty = validated(train, RIDGES, ridge)
    methods = {name: described(this, number, coefficients) for name, coefficients in NOISY.items()}
    with torch.no_grad():
        trivial = float((train.targets**2).sum())
        methods[TRIVIAL] = {
            "error": this.relative_error(torch.zeros_like(this.test.targets)),
            "train_error": trivial / TRAIN,
            "total_bits": residual_bits(trivial, TRAIN, this.width) + 0.5 * math.log2(TRAIN),
        }
    outputs = {
        "network, no penalty": best_decayed(number, train, 0.0),
        "network, weight decay by validation": best_decayed(number, train, decay),
        "linear regression": ridge(train, 0.0),
        "linear, ridge by validation": ridge(train, penalty),
    }
    for name, predict in outputs.items():
        with torch.no_grad():
            fitted = float(((predict(train.inputs) - train.targets) ** 2).mean())
            methods[name] = {"error": this.relative_error(predict(inputs)), "train_error": fitted}
    return {"decay": decay, "ridge": penalty, "methods": methods}


def main() -> None:
    rows = [once(__file__, compared, number) for number in range(DRAWS)]
    summary: dict[str, dict[str, Any]] = {}
    for name, first in rows[0]["methods"].items():
        numbers = [key for key, value in first.items() if isinstance(value, float)]
        summary[name] = {key: spread(row["methods"][name][key] for row in rows) for key in numbers}
    shown = {name: {key: rows[0]["methods"][name][key] for key in ("weights", "prior")} for name in NOISY}
    save_figure("weights-and-prior", figure, shown)
    result = {
        "draws": DRAWS,
        "width": WIDTH,
        "methods": summary,
        "draws_where_shortest": shortest(rows, with_prior=True),
        "draws_where_shortest_without_the_priors_bits": shortest(rows, with_prior=False),
        "chosen": {key: [row[key] for row in rows] for key in ("decay", "ridge")},
        "costs_of_runs_nats": {name: [row["methods"][name]["costs_of_runs"] for row in rows] for name in NOISY},
    }
    write_result(__file__, result)


def shortest(rows: Sequence[dict[str, Any]], with_prior: bool) -> dict[str, int]:
    """How often each description was the shortest."""
    names = [*NOISY, TRIVIAL]

    def bits(row: dict[str, Any], name: str) -> float:
        found = row["methods"][name]
        return found["total_bits"] - (0 if with_prior else found.get("prior_bits", 0))

    winners = [min(names, key=partial(bits, row)) for row in rows]
    return {name: winners.count(name) for name in names}


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    main()
