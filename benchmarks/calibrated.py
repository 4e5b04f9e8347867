"""ResNet-20 rounded by rate and loss with calibration data, without fine-tuning: three draws of images.

The loss is each layer's output error on 2 048 training images. Files hold everything, also the numbers of one
dimension, rounded too. Accuracy of what they decode to, on all CIFAR-10 test images.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import laconic
from benchmarks.cifar import accuracy, drawn, resnet20
from benchmarks.common import once, spreads, write_result
from laconic.model.evidence import GRAM, observe

SEEDS = (0, 1, 2)
N_IMAGES = 2048
PRICES = (1e6, 1.5e6, 2.5e6, 4e6)


def run(seed: int) -> dict[str, dict[str, float]]:
    model = resnet20()
    evidence = observe(model, drawn(seed, N_IMAGES).batches(64), [GRAM])
    state = model.state_dict()
    floats = [name for name, tensor in state.items() if tensor.is_floating_point()]
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lac"
        for price in PRICES:
            n_bytes = laconic.save(
                state, path, laconic.quantization.RateLoss(price, evidence=evidence), include=floats
            )
            decoded = laconic.load(path, into=resnet20())
            rows[f"{price:g}"] = {"file_bytes": n_bytes, "accuracy": accuracy(decoded)}
    return rows


def main() -> None:
    runs = [once(__file__, run, seed) for seed in SEEDS]
    table = {price: spreads(rows[price] for rows in runs) for price in runs[0]}
    result = {"seeds": SEEDS, "images": N_IMAGES, "dense_accuracy": accuracy(resnet20()), "prices": table}
    write_result(__file__, result)


if __name__ == "__main__":
    main()
