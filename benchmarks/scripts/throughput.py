"""Coding speed on MiniLM-L6's weights (22.7 M), one thread, after a warm-up: whole files on disk."""

from __future__ import annotations

import torch

import laconic
from benchmarks.command_line import command_line
from benchmarks.networks import minilm
from benchmarks.record_keeping import write_result
from benchmarks.timing import timed
from laconic.formats import read_checkpoint
from laconic.quantization import Grid

REPEATS = 5


def main() -> None:
    torch.set_num_threads(1)
    tensors = read_checkpoint(minilm.folder() / "model.safetensors")
    n_weights = sum(tensor.numel() for tensor in tensors.values())
    found, _ = timed(lambda path: laconic.save(tensors, path), laconic.load, REPEATS)
    results = {
        "weights": n_weights,
        "repeats": REPEATS,
        "relative_error": Grid().relative_error,
        "file_bytes": found["bytes"],
        "encode_weights_per_second": n_weights / found["encode_seconds"],
        "decode_weights_per_second": n_weights / found["decode_seconds"],
    }
    write_result(__file__, results)


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    main()
