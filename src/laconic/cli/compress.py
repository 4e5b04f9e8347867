"""What ``MODULE:NAME`` on the command line refers to, and the search for the file of such a network."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from laconic.core.text import did_you_mean
from laconic.datasets.standard import Dataset
from laconic.errors import LaconicError, MismatchError
from laconic.model.objective import Batches, check_batches
from laconic.search.compress import compress
from laconic.search.targets import Attempt, MaxBytes, MaxDrop, Shortest, Target
from laconic.training.loop import Training


def function(option: str, reference: str) -> Callable[..., Any]:
    """The function that ``MODULE:NAME`` refers to, given for an option; MismatchError if there is none."""
    path, _, name = reference.partition(":")
    if not path or not name:
        raise MismatchError(f"{option}: expected MODULE:NAME, found {reference!r}")
    found = _module(option, path)
    for part in name.split("."):
        if not hasattr(found, part):
            raise MismatchError(f"{option}: expected {part!r} in {path}, found none{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    if not callable(found) or isinstance(found, nn.Module):
        raise MismatchError(f"{option}: expected a function, found {reference} to be a {type(found).__name__}")
    return _named(option, reference, found)


def _named(option: str, reference: str, found: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose errors say in one line where they are from."""

    @functools.wraps(found)
    def called(*args: Any) -> Any:
        try:
            return found(*args)
        except LaconicError:
            raise
        except Exception as error:
            *_, called_at, raised_at = (None, *traceback.extract_tb(error.__traceback__))
            # An error of the call itself, such as an argument that is missing, has no place in the user's file.
            at = f", at {raised_at.filename}:{raised_at.lineno}" if called_at else ""
            raise MismatchError(f"{option}: {reference} raised {type(error).__name__}: {error}{at}") from error

    return called


def _module(option: str, path: str) -> Any:
    """The current folder is searched first."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        package, _, last = error.name.rpartition(".")
        where = getattr(sys.modules[package], "__path__", []) if package else [str(Path.cwd())]
        hint = did_you_mean(last, [module.name for module in pkgutil.iter_modules(where)])
        raise MismatchError(f"{option}: expected a module {path!r}, found none named {error.name!r}{hint}") from None


BATCH_SIZE, MAX_AT_ONCE = 64, 500


def target_of(max_drop: float | None, max_bytes: int | None) -> Target:
    """The target that was asked for."""
    if max_drop is not None:
        return MaxDrop(max_drop)
    return Shortest() if max_bytes is None else MaxBytes(max_bytes)


def network_of(make: Callable[[], Any], option: str) -> nn.Module:
    """What a function of the user's returns; MismatchError if it is no network."""
    model = make()
    if not isinstance(model, nn.Module):
        raise MismatchError(f"{option}: expected an nn.Module, found a {type(model).__name__}")
    return model


def search(  # noqa: PLR0913 – one for each option
    model: nn.Module,
    data: Any,
    judge: Callable[[nn.Module], float] | Batches | None,
    output: Path,
    target: Target,
    epochs: int,
    keep: Path | None,
) -> None:
    """Search for the file, with a line for each attempt; the test part of a `Dataset` judges by default."""
    console = Console()
    if isinstance(data, Dataset):
        test = data.test
        judge = judge or test.batches(MAX_AT_ONCE)
        data = data.train.batches(BATCH_SIZE, shuffle=True)
    check_batches(data, "--data")

    def show(attempt: Attempt) -> None:
        found = f"{attempt.measured.n_bytes:,.0f} bytes, score {attempt.measured.score:.4f}"
        console.print(f"{attempt.label}: {found}", style="dim", highlight=False)
        status.update("Trying the next price")

    finetune = Training(epochs) if epochs else None
    with console.status("Judging the network itself") as status:
        found = compress(model, data, output, target, judge, finetune, show, keep=keep)
    console.print(found)
