"""Lossless coders of floats, run in their own environment on bytes, `plain` in in.npz, into a file and back.

ZipNN (Hershcovitch et al. 2024, arXiv:2411.05239) as it comes, and zstd, with and without a byte shuffle: the
first bytes of all elements, then the second, and so on.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zstandard  # pyright: ignore[reportMissingImports]
from zipnn import ZipNN  # pyright: ignore[reportMissingImports]

WIDTHS = {"float32": 4, "bfloat16": 2}


def zipnn(dtype, threads):
    def compress(data):
        # It may scribble over its input.
        return ZipNN(input_format="byte", bytearray_dtype=dtype, threads=threads).compress(bytearray(data))

    def decompress(packed):
        return ZipNN(input_format="byte", bytearray_dtype=dtype, threads=threads).decompress(packed)

    return compress, decompress


def zstd(level, width, threads):
    """After a shuffle of elements `width` bytes wide."""

    def compress(data):
        bytes_ = np.frombuffer(data, np.uint8)
        even = bytes_[: bytes_.size // width * width].reshape(-1, width)
        shuffled = even.T.tobytes() + bytes_[even.size :].tobytes()
        return zstandard.ZstdCompressor(level=level, threads=0 if threads == 1 else threads).compress(shuffled)

    def decompress(packed):
        bytes_ = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8)
        n = bytes_.size // width
        return bytes_[: n * width].reshape(width, n).T.tobytes() + bytes_[n * width :].tobytes()

    return compress, decompress


def measured(compress, decompress, data, repeats):
    """Median seconds in memory, and with writing and reading the file."""
    path, rows = Path("packed"), []
    for _ in range(repeats):
        times = [time.perf_counter()]
        packed = compress(data)
        times.append(time.perf_counter())
        path.write_bytes(packed)
        times.append(time.perf_counter())
        packed = path.read_bytes()
        times.append(time.perf_counter())
        back = decompress(packed)
        times.append(time.perf_counter())
        assert bytes(back) == data
        compressing, writing, reading, decompressing = np.diff(times)
        rows.append((compressing, decompressing, compressing + writing, reading + decompressing))
    names = ("encode_seconds_in_memory", "decode_seconds_in_memory", "encode_seconds", "decode_seconds")
    return {"bytes": path.stat().st_size, **dict(zip(names, np.median(rows, axis=0).tolist(), strict=True))}


def main() -> None:
    options = json.loads(sys.argv[1])
    dtype, threads, repeats = options["dtype"], options["threads"], options["repeats"]
    with np.load("in.npz") as file:
        data = file["plain"].tobytes()
    coders = {f"zipnn {version('zipnn')}": zipnn(dtype, threads)}
    for level in options["zstd_levels"]:
        coders[f"zstd-{level}"] = zstd(level, 1, threads)
        coders[f"byte shuffle, zstd-{level}"] = zstd(level, WIDTHS[dtype], threads)
    figures = {name: measured(*coder, data, repeats) for name, coder in coders.items()}
    np.savez("out.npz")
    Path("figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
