"""How long a file takes to be written and read."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def timed(write: Callable[[Path], int], read: Callable[[Path], Any], repeats: int) -> tuple[dict[str, float], Any]:
    """Bytes and median seconds of writing a file and reading it, and what was read; kernels are compiled."""
    encode, decode, n_bytes, back = list[float](), list[float](), 0, None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.lac"
        for _ in range(repeats + 1):
            start = time.perf_counter()
            n_bytes = write(path)
            middle = time.perf_counter()
            back = read(path)
            end = time.perf_counter()
            encode.append(middle - start)
            decode.append(end - middle)
    seconds = {"encode_seconds": statistics.median(encode[1:]), "decode_seconds": statistics.median(decode[1:])}
    return {"bytes": n_bytes, **seconds}, back
