"""ResNet-20 rounded by rate and loss with calibration data, without fine-tuning: three draws of images.

The loss is each layer's output error on 2 048 training images. Files hold everything, also the numbers of one
dimension, rounded too. Accuracy of what they decode to, on all CIFAR-10 test images.
"""

from __future__ import annotations

from collections.abc import Sequence

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.cifar import accuracy, drawn, resnet20
from benchmarks.networks.decoded import decoded
from benchmarks.record_keeping import once, spreads, write_result
from laconic.model import Statistic
from laconic.quantization import RateLoss

SEEDS = (0, 1, 2)
N_IMAGES = 2048
PRICES = (1e6, 1.5e6, 2.5e6, 4e6)


def run(seed: int) -> dict[str, dict[str, float]]:
    model = resnet20()
    evidence = laconic.model.observe(model, drawn(seed, N_IMAGES).batches(64), [Statistic.GRAM])
    state = model.state_dict()
    floats = [name for name, tensor in state.items() if tensor.is_floating_point()]
    rows: dict[str, dict[str, float]] = {}
    for price in PRICES:
        network, n_bytes = decoded(state, resnet20(), RateLoss(price, evidence=evidence), floats)
        rows[f"{price:g}"] = {"file_bytes": n_bytes, "accuracy": accuracy(network)}
    return rows


def main(seeds: Sequence[int]) -> None:
    runs = [once(__file__, run, seed) for seed in seeds]
    table = {price: spreads(rows[price] for rows in runs) for price in runs[0]}
    result = {"seeds": seeds, "images": N_IMAGES, "dense_accuracy": accuracy(resnet20()), "prices": table}
    write_result(__file__, result)


if __name__ == "__main__":
    main(command_line(__doc__, SEEDS).parse_args().seeds)
