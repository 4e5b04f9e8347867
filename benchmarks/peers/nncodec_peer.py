"""NNCodec (Fraunhofer HHI; DeepCABAC, ISO/IEC 15938-17), run in its own environment on arrays in in.npz.

float32 arrays are quantised at options qp and use_dq (dependent quantisation), int32 arrays coded as they
are. Its package imports data sets and model zoos that the coder has no use for: an empty module stands in.
"""

import json
import statistics
import sys
import time
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np

framework = types.ModuleType("nncodec.framework")
vars(framework).update(tensorflow_model=None, pytorch_model=None, use_case_init=None)
sys.modules["nncodec.framework"] = framework
from nncodec import nnc  # noqa: E402  # pyright: ignore[reportMissingImports]


def main() -> None:
    options = json.loads(sys.argv[1])
    repeats = options.pop("repeats")
    encode, decode, stream, decoded = [], [], b"", {}
    for _ in range(repeats):
        with np.load("in.npz") as file:
            arrays = {name: np.ascontiguousarray(array) for name, array in file.items()}
        start = time.perf_counter()
        stream = nnc.compress(arrays, bitstream_path=None, return_bitstream=True, row_skipping=True, **options)
        middle = time.perf_counter()
        decoded = nnc.decompress(stream)
        end = time.perf_counter()
        encode.append(middle - start)
        decode.append(end - middle)
    np.savez("out.npz", **decoded)
    figures = {
        "version": version("nncodec"),
        "bytes": len(stream),
        "encode_seconds": statistics.median(encode),
        "decode_seconds": statistics.median(decode),
    }
    Path("figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
