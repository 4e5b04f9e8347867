"""`laconic compress` on the public CIFAR-10 ResNets, without data, at the default relative error.

Accuracies are of the whole test set.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks.resnets import CHECKPOINTS, checkpoint, trained_resnet
from benchmarks.record_keeping import write_result
from laconic.datasets import Dataset, cifar10
from laconic.quantization import Grid

LACONIC = Path(sys.executable).with_name("laconic")


def measure(depth: int, data: Dataset) -> dict[str, float]:
    model = trained_resnet(depth)
    dense = laconic.evaluate(model, data.test.batches(1000))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet.lac"
        subprocess.run([LACONIC, "compress", checkpoint(depth), "-o", path], check=True)
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
    data = cifar10()
    results = {f"resnet{depth}": measure(depth, data) for depth in CHECKPOINTS}
    write_result(__file__, {"relative_error": Grid().relative_error, **results})


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    main()
