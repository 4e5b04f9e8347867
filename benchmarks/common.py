"""What every benchmark records beside its figures."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("laconic", "torch", "numpy", "numba")


def write_result(script: str, results: Any) -> None:
    """Write `results` with versions, command and machine to the script's name with .json, and show them."""
    path = Path(script).with_suffix(".json")
    result = {
        "command": " ".join(["python", "-m", f"benchmarks.{path.stem}", *sys.argv[1:]]),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "cores": os.cpu_count(),
        "processor": _processor(),
        "results": results,
    }
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    print(f"written: {path}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def spread(values: Iterable[float]) -> dict[str, float]:
    """Mean, standard deviation and extremes of one figure over seeds."""
    values = list(values)
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
    }
