"""Coding speed on MiniLM-L6's weights (22.7 M), one thread, after a warm-up: whole files on disk."""

from __future__ import annotations

import cProfile
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import laconic
from benchmarks import minilm
from benchmarks.common import write_result
from laconic.formats.checkpoints import read_checkpoint

REPEATS = 5


def main() -> None:
    torch.set_num_threads(1)
    tensors = read_checkpoint(minilm.folder() / "model.safetensors")
    n_weights = sum(tensor.numel() for tensor in tensors.values())
    encode, decode = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minilm.lac"
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            n_bytes = laconic.save(tensors, path)
            middle = time.perf_counter()
            laconic.load(path)
            end = time.perf_counter()
            encode.append(n_weights / (middle - start))
            decode.append(n_weights / (end - middle))
        if "--profile" in sys.argv:
            both = "laconic.save(tensors, path); laconic.load(path)"
            cProfile.runctx(both, globals(), locals(), sort="tottime")
            return
    results = {
        "weights": n_weights,
        "repeats": REPEATS,
        "relative_error": laconic.quantization.Grid().relative_error,
        "file_bytes": n_bytes,
        "encode_weights_per_second": statistics.median(encode[1:]),
        "decode_weights_per_second": statistics.median(decode[1:]),
    }
    write_result(__file__, results)


if __name__ == "__main__":
    main()
