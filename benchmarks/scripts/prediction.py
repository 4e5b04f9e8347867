"""Do total bits foretell the test error? Networks ranked by their description length, and by its rivals.

Networks of three families are trained on the same images. Each is given the shortest two-part code that is
found for it, bits of a file + bits of the training labels given what the file decodes to: rounded at a
searched price (`compress`) or on coarse grids, or left on the grids that it lies on (`compare`). Beside it
stands what else is used to tell which network will do best. Low values should go with low test errors: told
in rank correlations over the networks, and in the test error that is lost by picking the lowest.

A seed draws the initial weights, the images to train on and those held out. Of the few digits all others are
for testing; MNIST's test images are its own. MNIST is averaged to 14 by 14 pixels, to train many networks.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.families import NETWORKS, trained
from benchmarks.networks.splits import part
from benchmarks.plots.bits_and_error import figure
from benchmarks.plots.style import save_figure
from benchmarks.ranking import regret, rho, tau
from benchmarks.record_keeping import once, spread, spreads, write_result
from laconic import datasets
from laconic.datasets import Split
from laconic.quantization import Grid, KeepGrid

SEEDS = (0, 1, 2)
GRIDS = tuple(KeepGrid(Grid(error)) for error in (0.4, 0.3, 0.2))
AT_ONCE = 1000
SHOWN = ("total_bits", "file_bits", "data_bits", "test_error", "file_test_error")
FAMILIES = ("", "perceptron", "convolutional")  # how the names of those compared begin


@dataclass(frozen=True)
class Data:
    """How many images to train on, epochs of a usual training, how many images are held out."""

    n_training: int
    epochs: int
    held_out: tuple[int, ...]


DATA = {"digits": Data(1000, 60, (20, 50, 200)), "MNIST": Data(4000, 15, (20, 50, 200, 1000))}


def images(name: str) -> tuple[Split, Split | None]:
    """Those to draw from, and those to test on where they are others."""
    if name == "digits":
        found = datasets.digits()
        inputs = torch.cat([found.train.inputs, found.test.inputs]).view(-1, 1, 8, 8)
        return Split(inputs, torch.cat([found.train.targets, found.test.targets])), None
    found = datasets.mnist()
    train, test = (Split(F.avg_pool2d(of.inputs, 2), of.targets) for of in (found.train, found.test))
    return train, test


def parts(name: str, seed: int) -> dict[str, Split]:
    data, (found, test) = DATA[name], images(name)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    ends = (data.n_training, data.n_training + max(data.held_out))
    training, held_out, rest = (part(found, drawn) for drawn in order.tensor_split(ends))
    return {"training": training, "held_out": held_out, "test": test or rest}


def error(model: nn.Module, examples: Split) -> float:
    return 1 - laconic.evaluate(model, examples.batches(AT_ONCE)).accuracy


def code(model: nn.Module, of: Mapping[str, Split]) -> dict[str, float]:
    """The shortest two-part code found, and the test error of what its file decodes to."""
    training, test = of["training"].batches(AT_ONCE), of["test"].batches(AT_ONCE)
    kept = laconic.compare({"": model}, (training, test), GRIDS).shortest
    test_error = 1 - kept.score
    with tempfile.TemporaryDirectory() as folder:
        found = laconic.compress(model, training, Path(folder) / "net.lac", laconic.Shortest())
        if found.chosen.measured.total_bits < kept.total_bits:
            kept = found.chosen.measured
            test_error = error(laconic.load(found.path, into=copy.deepcopy(model)).eval(), of["test"])
    return {
        "total_bits": kept.total_bits,
        "file_bits": 8 * kept.n_bytes,
        "data_bits": kept.data_bits,
        "file_test_error": test_error,
    }


@torch.no_grad()
def norms(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """What is small in networks that generalise, it is said.

    The L2 norm of all parameters. The product of the layers' largest singular values, kernels being matrices
    of a row a filter. The path norm: the root of the outputs' sum for inputs of ones and squared parameters.
    """
    squared = copy.deepcopy(model).double()
    for parameter in squared.parameters():
        parameter.square_()
    largest = [float(torch.linalg.matrix_norm(w.flatten(1), 2)) for w in laconic.model.compressible(model).values()]
    return {
        "l2_norm": sum(float(p.sum()) for p in squared.parameters()) ** 0.5,
        "spectral_norms": math.prod(largest),
        "path_norm": float(squared(torch.ones_like(inputs[:1]).double()).sum().sqrt()),
    }


def run(data: str, name: str, seed: int) -> dict[str, float]:
    of = parts(data, seed)
    model, held_out = trained(NETWORKS[name], of["training"], DATA[data].epochs, seed), of["held_out"]
    fitted = laconic.evaluate(model, of["training"].batches(AT_ONCE))
    return {
        **code(model, of),
        "parameters": sum(p.numel() for p in model.parameters()),
        "nonzero": sum(int(p.count_nonzero()) for p in model.parameters()),
        **norms(model, held_out.inputs),
        "training_bits": fitted.bits,
        "training_error": 1 - fitted.accuracy,
        **{f"error_on_{n}": error(model, part(held_out, slice(n))) for n in DATA[data].held_out},
        "test_error": error(model, of["test"]),
    }


def ranked(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """By each measure, over the networks and seed by seed: `rows` are a network's, one a seed."""
    keys = [key for key in next(iter(rows.values()))[0] if not key.endswith("test_error")]
    found = {}
    for measure in [*keys, "at_random"]:
        judged = []
        for of_seed in zip(*rows.values(), strict=True):
            low = [row.get(measure, 0.0) for row in of_seed]
            judged.append({})
            for of, error in {"": "test_error", "file_": "file_test_error"}.items():
                errors = [row[error] for row in of_seed]
                by = {"tau": tau(low, errors), "rho": rho(low, errors), "regret": regret(low, errors)}
                judged[-1] |= {of + name: figure for name, figure in by.items()}
        found[measure] = spreads(judged)
    return found


def main(seeds: Sequence[int]) -> None:
    torch.set_num_threads(1)
    rows = {
        data: {name: [once(__file__, run, data, name, seed) for seed in seeds] for name in NETWORKS} for data in DATA
    }
    save_figure("bits-and-error", figure, rows)
    results: dict[str, Any] = {"seeds": seeds}
    for data, of in rows.items():
        measures = {
            family or "all": ranked({name: row for name, row in of.items() if name.startswith(family)})
            for family in FAMILIES
        }
        networks = {name: {key: spread(r[key] for r in runs) for key in SHOWN} for name, runs in of.items()}
        results[data] = {"measures": measures, "networks": networks}
    write_result(__file__, results)


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
