"""`laconic compress` with data: search for the file that meets a target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from laconic.datasets.standard import Dataset
from laconic.description.describe import evaluate
from laconic.errors import MismatchError
from laconic.search.compress import compress
from laconic.search.targets import Attempt, MaxBytes, MaxDrop, Shortest, Target
from laconic.training.loop import Training

BATCH_SIZE, MAX_AT_ONCE = 64, 500


def target_of(max_drop: float | None, max_bytes: int | None) -> Target:
    """The target that was asked for."""
    if max_drop is not None:
        return MaxDrop(max_drop)
    return Shortest() if max_bytes is None else MaxBytes(max_bytes)


def network_of(make: Callable[[], Any], option: str) -> nn.Module:
    """What a function of the user's returns.

    Raises:
        MismatchError: it is no network.
    """
    model = make()
    if not isinstance(model, nn.Module):
        raise MismatchError(f"{option}: expected an nn.Module, found a {type(model).__name__}")
    return model


def search(
    model: nn.Module, data: Any, judge: Callable[[nn.Module], float] | None, output: Path, target: Target, epochs: int
) -> None:
    """Search for the file, with a line for each attempt, and print what came of it.

    Args:
        model: the network.
        data: batches, or a `Dataset`, whose test part then judges by default.
        judge: from a network to its score.
        output: the file to write.
        target: what is asked of it.
        epochs: of fine-tuning at each price; 0 for none.
    """
    console = Console()
    if isinstance(data, Dataset):
        test = data.test
        judge = judge or (lambda network: evaluate(network, test.batches(MAX_AT_ONCE)).accuracy)
        data = data.train.batches(BATCH_SIZE, shuffle=True)

    def show(attempt: Attempt) -> None:
        found = f"{attempt.measured.n_bytes:,.0f} bytes, score {attempt.measured.score:.4f}"
        console.print(f"{attempt.label}: {found}", style="dim", highlight=False)

    finetune = Training(epochs) if epochs else None
    console.print(compress(model, data, output, target, judge, finetune, show))
