"""What scripts leave behind: results, the runs they were made from, and files as records.

`results/NAME.json` is what a script wrote last. `results/NAME.runs.jsonl` has a line for each finished run,
so that a benchmark of hours goes on where it was interrupted. `records` has the files that networks became.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy
import torch

import laconic

Row = TypeVar("Row", bound=dict[str, Any])
HERE = Path(__file__).parent
RESULTS = HERE / "results"
PACKAGES = (laconic, torch, numpy, numba)


def write_result(script: str, results: Any) -> None:
    """Write what a script found, with versions, command and machine, and show it."""
    path = _path(script, ".json")
    command = ["python", "-m", f"benchmarks.scripts.{path.stem}", *sys.argv[1:]]
    _write(path, json.dumps({"command": " ".join(command), **_machine(), "results": results}, indent=2))
    print(json.dumps(results, indent=2))
    print(f"written: {path}")


def read_results(script: str) -> dict[str, Any]:
    """What a script wrote last; nothing if it never ran."""
    path = _path(script, ".json")
    return json.loads(path.read_text())["results"] if path.exists() else {}


def once(script: str, run: Callable[..., Row], *of: Any) -> Row:
    """`run(*of)`, or what it returned when it last ran with arguments of these names.

    After changing what a script runs, delete its runs.
    """
    key = [str(value) for value in of]
    kept = next((kept for kept in runs(script) if kept["of"] == key), None)
    if kept is None:
        kept = {"of": key, **_machine(), "row": run(*of)}
        _keep(script, kept)
    print(*key, kept["row"], flush=True)
    return kept["row"]


def runs(script: str) -> list[dict[str, Any]]:
    """The finished runs of a script, each with what it is `of`, the machine and its `row`."""
    path = _path(script, ".runs.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def record(network: str, price: float, seed: int) -> Path:
    """Where the file is kept that a network trained under the code at a price became."""
    return HERE / "records" / f"{network}-{price:g}-{seed}.lac"


def spread(values: Iterable[float]) -> dict[str, float]:
    """Mean, standard deviation and extremes of one figure over seeds."""
    values = list(values)
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
    }


def spreads(rows: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The spread of each figure over rows that all have it."""
    rows = list(rows)
    return {key: spread(row[key] for row in rows) for key in rows[0]}


def _path(script: str, ending: str) -> Path:
    return RESULTS / f"{Path(script).stem}{ending}"


def _keep(script: str, kept: dict[str, Any]) -> None:
    """Add a run; those of processes side by side too."""
    with _alone():
        lines = sorted([*runs(script), kept], key=lambda kept: kept["of"])
        text = "\n".join(json.dumps(line) for line in lines)
        _write(_path(script, ".runs.jsonl"), text)


@contextmanager
def _alone() -> Iterator[None]:
    """No other process is in this block."""
    folder = os.open(RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(f"{text}\n")
    part.replace(path)


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "versions": {package.__name__: str(package.__version__) for package in PACKAGES},
        "cores": os.cpu_count(),
        "processor": _processor(),
        **({"accelerator": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
