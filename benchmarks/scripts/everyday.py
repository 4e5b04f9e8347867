"""What works on networks of the kinds that people have: a cell for each network and job; seconds on two cores.

A cell says what came of it: the score, the examples seen, the zeros, how many times smaller the file is; or the error
by name, which says what to do. Networks are trained for a moment, so that there is something to lose.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.everyday import NETWORKS, Everyday
from benchmarks.record_keeping import write_result
from laconic.model import Statistic

NEEDS = (Statistic.GRADIENT, Statistic.GRAM, Statistic.NORM, Statistic.SENSITIVITY)


def evaluated(of: Everyday) -> str:
    code = laconic.evaluate(of.model, of.batches, of.objective)
    known = "accuracy" if code.n_right is not None else "minus the mean loss"
    return f"{known} {code.score:.3f} of {code.n_labels:,} labels"


def trained(of: Everyday) -> str:
    training = laconic.Training(20, partial(torch.optim.Adam, lr=3e-3), of.objective)
    before = laconic.evaluate(of.model, of.batches, of.objective).loss
    laconic.train(of.model, of.batches, training)
    return f"loss {before:.3f} → {laconic.evaluate(of.model, of.batches, of.objective).loss:.3f}"


def observed(of: Everyday) -> str:
    evidence = laconic.model.observe(of.model, of.batches, NEEDS, of.objective)
    n = len(laconic.model.compressible(of.model))
    return f"{len(evidence.found[Statistic.GRAM])} Gram matrices of {n} tensors, {evidence.n} examples"


def pruned(of: Everyday) -> str:
    model = copy.deepcopy(of.model)
    mask = laconic.prune_(model, 0.9, scope=laconic.pruning.scopes.PerTensor())
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1]
    zeros = 1 - sum(int(p.count_nonzero()) for p in matrices) / sum(p.numel() for p in matrices)
    return f"{zeros:.1%} zeros in {len(mask)} tensors"


def compressed(of: Everyday) -> str:
    with tempfile.TemporaryDirectory() as folder:
        target = laconic.MaxDrop(0.1)
        found = laconic.compress(of.model, of.batches, Path(folder) / "n.lac", target, objective=of.objective)
    return f"{found.dense_bytes / found.chosen.measured.n_bytes:.1f} times smaller" + " (missed)" * bool(found.misses)


def saved(of: Everyday) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.lac"
        n_bytes = laconic.save(of.model, path)
        laconic.load(path, into=copy.deepcopy(of.model))
    held = {id(p): p.nbytes for p in of.model.state_dict(keep_vars=True).values()}
    return f"{sum(held.values()) / n_bytes:.1f} times smaller"


JOBS: dict[str, Callable[[Everyday], str]] = {
    "train": trained,
    "evaluate": evaluated,
    "observe": observed,
    "prune_ 0.9": pruned,
    "compress": compressed,
    "save, load": saved,
}


def row(network: str) -> dict[str, str]:
    """What came of each job, or the error that names what to do."""
    torch.manual_seed(0)
    of, cells = NETWORKS[network](), {}
    for job, run in JOBS.items():
        try:
            cells[job] = run(of)
        except laconic.LaconicError as error:
            cells[job] = f"{type(error).__name__}: {error}"
    return cells


def main() -> None:
    write_result(__file__, {network: row(network) for network in NETWORKS})


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    main()
