"""Selecting the 10 % largest of 100 M weights: Laconic against torch.nn.utils.prune, time and extra memory.

Each measurement is a process of its own, since a peak of memory can only rise; they alternate.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn.utils import prune

from benchmarks.command_line import command_line
from benchmarks.record_keeping import write_result
from laconic.pruning import Pruner, select
from laconic.pruning.budgets import Density
from laconic.pruning.criteria import magnitude

N_LAYERS, SIDE = 4, 5000
AMOUNT = 0.9
REPEATS = 3


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(method: str) -> dict[str, float]:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(SIDE, SIDE, bias=False) for _ in range(N_LAYERS)])
    select(magnitude({"w": torch.rand(1000)}), Density(0.1))  # imports
    before, start = peak_bytes(), time.perf_counter()
    if method == "laconic":
        kept = Pruner().at(AMOUNT).mask(model).n_kept
    else:
        layers = [(layer, "weight") for layer in model]
        prune.global_unstructured(layers, prune.L1Unstructured, amount=AMOUNT)
        kept = sum(int(layer.get_buffer("weight_mask").sum()) for layer in model)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "extra_bytes": peak_bytes() - before, "kept": kept}


def main() -> None:
    runs: dict[str, list[dict[str, float]]] = {"laconic": [], "torch": []}
    for _ in range(REPEATS):
        for name, found in runs.items():
            command = [sys.executable, "-m", "benchmarks.scripts.select", "--measure", name]
            found.append(json.loads(subprocess.check_output(command, text=True)))
    medians = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]} for name, found in runs.items()
    }
    ours, theirs = medians["laconic"], medians["torch"]
    ratios = {
        "times_faster": theirs["seconds"] / ours["seconds"],
        "share_of_extra_memory": ours["extra_bytes"] / theirs["extra_bytes"],
    }
    write_result(__file__, {"weights": N_LAYERS * SIDE**2, "repeats": REPEATS, **medians, **ratios})


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--measure", choices=["laconic", "torch"], help="measure once, in this process")
    if method := parser.parse_args().measure:
        print(json.dumps(measure(method)))
    else:
        main()
