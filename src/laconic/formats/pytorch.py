"""PyTorch's files, zip archives or the older pickles, read with ``weights_only=True``.

That refuses every pickled object that is not a tensor or a plain container, so reading runs no code from the file.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from argparse import Namespace
from collections import defaultdict
from pathlib import Path, PosixPath
from typing import Any

import torch

from laconic.errors import CheckpointError
from laconic.formats.kinds import EXPECTED

# What training scripts keep beside weights, and is data alone: options, paths, logs.
_PLAIN = (Namespace, PosixPath, defaultdict, list)


def load_pytorch(path: Path) -> Any:
    """What is in the file, on the CPU; CheckpointError if it is damaged or holds other objects."""
    try:
        # Given a path, torch would go by its suffix.
        with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals([*_PLAIN]):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{path}: {EXPECTED}, found {_finding(error)}") from error


def _finding(error: Exception) -> str:
    """The fault that torch's page of advice names, in a few words."""
    if refused := re.search(r"(?:GLOBAL|class|global) (\S+) was not an allowed global", str(error)):
        return f"a pickled {refused[1]}, which is not loaded; save the model's state_dict() instead"
    if "Unsupported operand" in str(error):
        return "a pickle that weights_only=True does not read, as of protocol 4 or 5; save it by torch.save's default"
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    first_line = next((line for line in text.splitlines() if line.strip()), "")
    return f"a damaged one ({type(error).__name__}: {textwrap.shorten(first_line, 120)})"
