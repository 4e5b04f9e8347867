"""What every benchmark records beside its figures."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from laconic.core.atomic import atomic

Row = TypeVar("Row", bound=dict[str, Any])
PACKAGES = ("laconic", "torch", "numpy", "numba")


def write_result(script: str, results: Any) -> None:
    """Write `results` with versions, command and machine to the script's name with .json, and show them."""
    path = Path(script).with_suffix(".json")
    result = {
        "command": " ".join(["python", "-m", f"benchmarks.{path.stem}", *sys.argv[1:]]),
        **_machine(),
        "results": results,
    }
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    print(f"written: {path}")


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
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


def once(script: str, run: Callable[..., Row], *of: Any) -> Row:
    """`run(*of)`, or what it returned when it was last run: kept beside the script, in the folder runs.

    A benchmark of hours that is interrupted goes on with the runs that are missing. After changing what a
    script runs, delete its folder.
    """
    folder = Path(script).parent / "runs" / Path(script).stem
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(repr(of).encode()).hexdigest()[:16]}.json"
    if not path.exists():
        row = run(*of)
        with atomic(path) as file:
            kept = {"of": [str(value) for value in of], **_machine(), "row": row}
            file.write(json.dumps(kept, indent=2).encode() + b"\n")
    kept = json.loads(path.read_text())
    print(*kept["of"], kept["row"], flush=True)
    return kept["row"]


def record(network: str, price: float, seed: int) -> Path:
    """Where the file is kept that a network trained under the code at a price became."""
    folder = Path(__file__).parent / "records"
    folder.mkdir(exist_ok=True)
    return folder / f"{network}-{price:g}-{seed}.lac"


def save_figure(path: Path, figure: Callable[..., Figure], *of: Any) -> None:
    """Write a figure for the documentation; the same figure is the same file."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "laconic"}):
        figure(*of).savefig(path, metadata={"Date": None})


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
