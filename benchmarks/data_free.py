"""`laconic compress` on the public CIFAR-10 ResNets, without data, at the default relative error.

The checkpoints are read from $LACONIC_DATA/checkpoints; accuracies are of the whole test set.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import laconic
from benchmarks.common import write_result
from laconic import datasets, zoo
from laconic.cli import main

CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}


def measure(name: str, data: datasets.Dataset) -> dict[str, float]:
    checkpoint = Path(os.environ["LACONIC_DATA"]) / "checkpoints" / CHECKPOINTS[name]
    model = getattr(zoo, name)()
    zoo.load_checkpoint(model, checkpoint)
    dense = laconic.evaluate(model, data.test.batches(1000))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.lac"
        try:
            main.main(["compress", str(checkpoint), "-o", str(path)])
        except SystemExit as done:
            assert done.code == 0, done.code
        tensors = {key.removeprefix("module."): tensor for key, tensor in laconic.load(path).items()}
        file_bytes = path.stat().st_size
    model.load_state_dict(tensors)
    decoded = laconic.evaluate(model, data.test.batches(1000))
    float_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    return {
        "dense_accuracy": dense.accuracy,
        "decoded_accuracy": decoded.accuracy,
        "points_lost": 100 * (dense.accuracy - decoded.accuracy),
        "file_bytes": file_bytes,
        "float32_weight_bytes": float_bytes,
        "times_smaller": float_bytes / file_bytes,
    }


def main() -> None:
    data = datasets.cifar10()
    results = {name: measure(name, data) for name in CHECKPOINTS}
    write_result(__file__, {"relative_error": laconic.quantization.Grid().relative_error, **results})


if __name__ == "__main__":
    main()
