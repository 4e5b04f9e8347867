"""What `laconic compress` does with a network, data and a target, once its arguments are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from laconic.datasets import Dataset
from laconic.description.data_code import evaluate
from laconic.errors import MismatchError
from laconic.shortest import compress as compress_model
from laconic.targets import Attempt, MaxBytes, MaxDrop, Shortest, Target
from laconic.training.loop import Training

BATCH, AT_ONCE = 64, 500


def target(max_drop: float | None, max_bytes: int | None) -> Target:
    """The target that was asked for."""
    if max_drop is not None:
        return MaxDrop(max_drop)
    return Shortest() if max_bytes is None else MaxBytes(max_bytes)


def compress(functions: Mapping[str, Callable[..., Any]], output: Path, goal: Target, epochs: int) -> None:
    """Search for the file, with a line for each attempt, and print its account.

    Args:
        functions: by option; the network's is called ``MODULE:NAME``.
        output: the file to write.
        goal: what is asked of it.
        epochs: of fine-tuning at each price; 0 for none.

    Raises:
        MismatchError: the network is none.
    """
    console = Console()
    model, data = functions["MODULE:NAME"](), functions["--data"]()
    if not isinstance(model, nn.Module):
        raise MismatchError(f"MODULE:NAME: expected an nn.Module, found a {type(model).__name__}")
    batches, judge = data, functions.get("--evaluate")
    if isinstance(data, Dataset):
        batches, test = data.train.batches(BATCH, shuffle=True), data.test
        judge = judge or (lambda network: evaluate(network, test.batches(AT_ONCE)).accuracy)

    def show(attempt: Attempt) -> None:
        what = f"{attempt.n_bytes:,} bytes, score {attempt.score:.4f}"
        console.print(f"{attempt.label}: {what}", style="dim", highlight=False)

    tuning = Training(epochs) if epochs else None
    console.print(compress_model(model, batches, output, goal, judge, tuning, show))
