"""A small causal language model with tied embeddings: rounded with and without data, and pruned to a half.

Three seeds. Calibration is on 128 windows of the training text, without labels: each layer's outputs are kept, the
table's by both of its uses. Losses are nats a token on text that is read once. Bytes are those that each quantiser
needs for a loss 0.03 and 0.1 above the exact network's, on the straight line through its files' logarithms of lost
nats over bytes.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import laconic
from benchmarks.command_line import command_line
from benchmarks.lines import log_over_bytes
from benchmarks.networks import small_lm
from benchmarks.record_keeping import once, spreads, write_result
from laconic.model import Evidence, Statistic, observe
from laconic.pruning import Pruner, criteria
from laconic.pruning.scopes import Global, PerTensor
from laconic.pruning.solvers import LeastSquares, SparseGPT
from laconic.quantization import Grid, Quantizer, RateLoss, price_at, squared_error

SEEDS = (0, 1, 2)
N_BATCHES = 8
ERRORS = (0.1, 0.14, 0.2, 0.28)
LOST = (0.03, 0.1)
AMOUNT = 0.5


def quantizers(model: nn.Module, evidence: Evidence) -> dict[str, list[Quantizer]]:
    """Of each kind, at several errors."""
    weights = list(laconic.model.compressible(model).values())
    sizes = [weight.numel() for weight in weights]
    energy = sum(float(weight.detach().double().square().sum()) for weight in weights)
    return {
        "grid": [Grid(error) for error in ERRORS],
        "squared error": [RateLoss(price_at(e**2 * energy, sum(sizes)), squared_error) for e in ERRORS],
        "calibrated": [RateLoss(price_at(2 * error**2, max(sizes)), evidence=evidence) for error in ERRORS],
    }


def pruners() -> dict[str, Pruner]:
    return {
        "magnitude": Pruner(scope=Global()),
        "magnitude, rates alike": Pruner(scope=PerTensor()),
        "output error": Pruner(criteria.output_error, scope=Global()),
        "output error, repaired": Pruner(criteria.output_error, scope=Global(), solver=LeastSquares()),
        "SparseGPT": Pruner(scope=PerTensor(), solver=SparseGPT()),
    }


def run(seed: int) -> dict[str, Any]:
    """Files of each quantiser, and losses when half of the weights are pruned by each method."""
    model = small_lm.trained(seed)
    evidence = observe(model, small_lm.batches("train", seed)[:N_BATCHES], [Statistic.GRAM])
    exact, files = small_lm.loss(model), dict[str, list[dict[str, float]]]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lac"
        for kind, chosen in quantizers(model, evidence).items():
            files[kind] = []
            for quantizer in chosen:
                n_bytes = laconic.save(model, path, quantizer)
                decoded = laconic.load(path, into=copy.deepcopy(model))
                files[kind].append({"bytes": n_bytes, "nats_lost": small_lm.loss(decoded) - exact})
    pruned = {}
    for name, pruner in pruners().items():
        network = copy.deepcopy(model)
        pruner.at(AMOUNT).prune_(network, evidence)
        pruned[name] = small_lm.loss(network)
    return {"exact": exact, "files": files, "pruned": pruned}


def bytes_at(lost: float, files: Sequence[Mapping[str, float]]) -> float:
    """On the line of logarithms of lost nats over bytes."""
    points = [file for file in files if file["nats_lost"] > 0]
    slope, intercept = log_over_bytes(points, "nats_lost")
    return (math.log(lost) - intercept) / slope


def main(seeds: Sequence[int]) -> None:
    rows = [once(__file__, run, seed) for seed in seeds]
    needed = [{f"{k}, {lost} nats": bytes_at(lost, r["files"][k]) for k in r["files"] for lost in LOST} for r in rows]
    result = {"seeds": seeds, "exact_nats": spreads({"loss": row["exact"]} for row in rows)["loss"]}
    result |= {"bytes": spreads(needed), "nats_at_half_pruned": spreads(row["pruned"] for row in rows), "runs": rows}
    write_result(__file__, result)


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
