"""Lossless coders of floats, run in their own environment on a safetensors file, `plain` in in.npz.

ZipNN (Hershcovitch et al. 2024, arXiv:2411.05239) as it comes, and zstd after a byte shuffle: the first
bytes of all elements, then the second, and so on.
"""

import json
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zstandard
from zipnn import ZipNN

WIDTHS = {"float32": 4, "bfloat16": 2}


def zipnn(dtype, threads):
    def compress(data):
        # It may scribble over its input.
        return ZipNN(input_format="byte", bytearray_dtype=dtype, threads=threads).compress(bytearray(data))

    def decompress(packed):
        return ZipNN(input_format="byte", bytearray_dtype=dtype, threads=threads).decompress(packed)

    return compress, decompress


def shuffled_zstd(level, width, threads):
    def compress(data):
        bytes_ = np.frombuffer(data, np.uint8)
        even = bytes_[: bytes_.size // width * width].reshape(-1, width)
        shuffled = even.T.tobytes() + bytes_[even.size :].tobytes()
        return zstandard.ZstdCompressor(level=level, threads=0 if threads == 1 else threads).compress(
            shuffled
        )

    def decompress(packed):
        bytes_ = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8)
        n = bytes_.size // width
        return bytes_[: n * width].reshape(width, n).T.tobytes() + bytes_[n * width :].tobytes()

    return compress, decompress


def measured(compress, decompress, data, repeats):
    encode, decode = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        packed = compress(data)
        middle = time.perf_counter()
        back = decompress(packed)
        end = time.perf_counter()
        assert bytes(back) == data
        encode.append(middle - start)
        decode.append(end - middle)
    return {
        "bytes": len(packed),
        "encode_seconds": statistics.median(encode),
        "decode_seconds": statistics.median(decode),
    }


def main() -> None:
    options = json.loads(sys.argv[1])
    dtype, threads, repeats = options["dtype"], options["threads"], options["repeats"]
    with np.load("in.npz") as file:
        data = file["plain"].tobytes()
    coders = {f"zipnn {version('zipnn')}": zipnn(dtype, threads)}
    for level in options["zstd_levels"]:
        coders[f"byte shuffle, zstd-{level}"] = shuffled_zstd(level, WIDTHS[dtype], threads)
    figures = {name: measured(*coder, data, repeats) for name, coder in coders.items()}
    np.savez("out.npz")
    Path("figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
