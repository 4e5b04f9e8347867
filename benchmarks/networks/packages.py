"""Packages that carry networks' weights, of which only files are read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def package(name: str) -> Path:
    """An installed package's folder, found without importing it; SystemExit if it is missing."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"{name} is missing: `make bench-peers` installs it")
    return Path(found.origin).parent
