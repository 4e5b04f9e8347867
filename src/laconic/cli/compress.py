"""What ``MODULE:NAME`` on the command line refers to, and the search for the file of such a network."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import nn

from laconic.core.text import did_you_mean
from laconic.datasets.standard import Dataset
from laconic.errors import LaconicError, MismatchError
from laconic.model.objective import check_batches, is_pair
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


def search(references: Mapping[str, str], output: Path, target: Target, epochs: int, keep: Path | None) -> str:
    """Search for the file of a network, with a line for each attempt.

    Args:
        references: where the network, the data and what judges are, by option.
        output: the file.
        target: what is asked of it.
        epochs: of fine-tuning at each price.
        keep: a folder for the attempts.

    Returns:
        What to say if the file misses the target; else nothing.
    """
    functions = {option: function(option, reference) for option, reference in references.items()}
    console = Console()
    model = network_of(functions["MODULE:NAME"], "MODULE:NAME")
    data = functions["--data"]()
    if not isinstance(data, Dataset) and not is_pair(data):
        check_batches(data, "--data")
    finetune = Training(epochs) if epochs else None
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Judging the network itself")

        def show(attempt: Attempt) -> None:
            found = f"{attempt.measured.n_bytes:,.0f} bytes, score {attempt.measured.score:.4f}"
            progress.print(f"{attempt.label}: {found}", style="dim", highlight=False)
            progress.update(task, description="Trying the next price")

        found = compress(model, data, output, target, functions.get("--evaluate"), finetune, show, keep=keep)
    console.print(found)
    if not found.misses:
        module, _, name = references["MODULE:NAME"].partition(":")
        how = f"from {module} import {name}; laconic.load({str(output)!r}, into={name}()).eval()"
        console.print(f"Load it: {how}", soft_wrap=True, highlight=False)
        return ""
    best = found.chosen.measured
    nearest = f"the nearest file has {best.n_bytes:,.0f} bytes and scores {best.score:.4f}, not {found.score:.4f}"
    return f"{output}: misses the target, {target.label}: {nearest}"
