"""What ``MODULE:NAME`` on the command line refers to."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from laconic.core.text import did_you_mean
from laconic.errors import MismatchError


def function(option: str, reference: str) -> Callable[..., Any]:
    """The function that ``MODULE:NAME`` refers to, given for an option.

    Raises:
        MismatchError: there is no such module or name, or it is no function.
    """
    path, _, name = reference.partition(":")
    if not path or not name:
        raise MismatchError(f"{option}: expected MODULE:NAME, found {reference!r}")
    found = _module(option, path)
    for part in name.split("."):
        if not hasattr(found, part):
            raise MismatchError(f"{option}: expected {part!r} in {path}, found none{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise MismatchError(f"{option}: expected a function, found {reference} to be a {type(found).__name__}")
    return found


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
