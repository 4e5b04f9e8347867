"""Peers run in environments of their own: a script of this folder, arrays in, arrays and figures out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
INTERPRETERS = {"nncodec_peer": "LACONIC_NNCODEC", "lossless_peer": "LACONIC_PEERS"}


def run(
    peer: str, arrays: Mapping[str, NDArray[Any]], **options: Any
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A peer's figures and what it decoded, under the interpreter that its environment variable names."""
    variable = INTERPRETERS[peer]
    if variable not in os.environ:
        sys.exit(f"{variable}: expected the interpreter that runs {peer}, found none; `make peers` makes one")
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.get("threads", 1)), "PYTHONPATH": ""}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "in.npz", **arrays)  # pyright: ignore[reportArgumentType]
        command = [os.environ[variable], str(HERE / f"{peer}.py"), json.dumps(options)]
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        with np.load(Path(folder) / "out.npz") as decoded:
            return json.loads((Path(folder) / "figures.json").read_text()), dict(decoded)
