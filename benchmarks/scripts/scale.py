"""A sharded checkpoint of 1 GB, there and back exactly: speed by threads, peak memory, a kill half-way.

Times are medians of runs in turn, and include writing files anew, which takes virtual machines longer than it
takes others. Memory is the highest peak of what the process holds beyond what it held when it began, as Linux
counts it (VmHWM). Takes some minutes, and 4 GB of disk.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import laconic
from benchmarks.command_line import command_line
from benchmarks.record_keeping import write_result
from laconic.file import FileOptions, Reader, export
from laconic.formats import open_checkpoint

N_BYTES = 1 << 30
SHAPES = ((4096, 4096), (11008, 2048), (4096,), (2048, 2048))
N_SHARDS = 4
REPEATS = 5
LACONIC = Path(sys.executable).with_name("laconic")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, packed, back = folder / "model", folder / "model.lac", folder / "back.safetensors"
        make(source)
        each: dict[str, list[dict[str, float]]] = {}
        for _, threads in itertools.product(range(REPEATS), (1, 2)):
            for what, of, to in (("compress", source, packed), ("decompress", packed, back)):
                each.setdefault(f"{what}_{threads}_threads", []).append(run(what, of, to, threads))
        runs = {name: summary(rows) for name, rows in each.items()}
        whole = packed.read_bytes()
        results = {
            "bytes": total(source),
            "largest_tensor_bytes": largest(source),
            "file_bytes": len(whole),
            "exact": same(source, back),
            **runs,
            "compress_speed_up": runs["compress_1_threads"]["seconds"] / runs["compress_2_threads"]["seconds"],
            "decompress_speed_up": runs["decompress_1_threads"]["seconds"] / runs["decompress_2_threads"]["seconds"],
            "killed": killed(source, folder / "killed.lac", whole),
        }
    write_result(__file__, results)


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Median times and speeds, the highest peak."""
    return {key: (max if "peak" in key else statistics.median)(row[key] for row in rows) for key in rows[0]}


def make(folder: Path) -> None:
    """Gaussian rows of different scales, half the bytes in bfloat16 and half in float32."""
    torch.manual_seed(0)
    folder.mkdir()
    for shard in range(N_SHARDS):
        dtype = torch.bfloat16 if shard % 2 else torch.float32
        tensors: dict[str, torch.Tensor] = {}
        n_bytes, i = 0, 0
        while n_bytes < N_BYTES // N_SHARDS:
            shape = SHAPES[i % len(SHAPES)]
            scales = torch.rand(shape[0], *[1] * (len(shape) - 1)).exp() * 0.02
            tensors[f"layers.{shard}.{i}.weight"] = (torch.randn(shape) * scales).to(dtype)
            n_bytes += tensors[f"layers.{shard}.{i}.weight"].nbytes
            i += 1
        save_file(tensors, folder / f"model-{shard + 1:05}-of-{N_SHARDS:05}.safetensors")


def run(what: str, source: Path, target: Path, threads: int) -> dict[str, float]:
    """Seconds and peak memory of a process of its own, which has compiled its kernels before."""
    target.unlink(missing_ok=True)
    arguments = ["--measure", what, str(source), str(target), str(threads)]
    command = [sys.executable, "-m", "benchmarks.scripts.scale", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(what: str, source: Path, target: Path, threads: int) -> dict[str, float]:
    warm_up(threads)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    start = time.perf_counter()
    (compress if what == "compress" else decompress)(source, target, threads)
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before
    n_bytes = total(source if what == "compress" else target)
    return {"seconds": seconds, "megabytes_per_second": n_bytes / seconds / 1e6, "peak_bytes_beyond_runtime": peak}


def compress(source: Path, target: Path, threads: int) -> None:
    """As `laconic compress --lossless` does: finished tensors are kept beside the file until it is whole."""
    work = FileOptions(threads, resume=str(source))
    laconic.save(open_checkpoint(source), target, None, work=work)


def decompress(source: Path, target: Path, threads: int) -> None:
    """As `laconic decompress` does."""
    with Reader(source) as reader:
        export(reader, target, reader.entries, work=FileOptions(threads))


def warm_up(threads: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dtype in (torch.float32, torch.bfloat16):
            save_file({"w": torch.randn(2000, 500).to(dtype)}, folder / "w.safetensors")
            compress(folder / "w.safetensors", folder / "w.lac", threads)
            decompress(folder / "w.lac", folder / "back", threads)


def memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def total(source: Path) -> int:
    return sum(tensor.nbytes for tensor in open_checkpoint(source).values())


def largest(source: Path) -> int:
    return max(tensor.nbytes for tensor in open_checkpoint(source).values())


def same(source: Path, back: Path) -> bool:
    found = open_checkpoint(back)
    return all(torch.equal(found[name], tensor) for name, tensor in open_checkpoint(source).items())


def killed(source: Path, target: Path, whole: bytes) -> dict[str, float | bool]:
    """Kill -9 once half is done, and run the same command again."""
    command = [LACONIC, "compress", source, "-o", target, "--lossless"]
    part = Path(f"{target}.part")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (part.exists() and part.stat().st_size > len(whole) / 2):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return {
        "bytes_kept": kept,
        "seconds_to_go_on": time.perf_counter() - start,
        "same_file": target.read_bytes() == whole,
        "part_left": part.exists(),
    }


if __name__ == "__main__":
    parser = command_line(__doc__)
    names = ("WHAT", "SOURCE", "TARGET", "THREADS")
    parser.add_argument("--measure", nargs=4, metavar=names, help="measure once, in this process")
    if given := parser.parse_args().measure:
        what, source, target, threads = given
        print(json.dumps(measure(what, Path(source), Path(target), int(threads))))
    else:
        main()
