"""Plain values, as TOML has them, read by the annotations of what they are for.

A constructor's parameters are its options: their names, types and defaults are read from its signature, so
that nothing is listed twice.
"""

from __future__ import annotations

import difflib
import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from laconic.errors import MismatchError

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Choice:
    """A name of an axis, with all its options.

    Attributes:
        name: as the registry has it.
        options: plain values by name, defaults filled in.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """A parameter of a constructor.

    Attributes:
        kind: its annotation.
        default: its default, or `REQUIRED`.
    """

    kind: Any
    default: Any


@cache
def options_of(constructor: Callable[..., Any]) -> dict[str, Option]:
    """The options of a constructor; its parameter `setting`, which no recipe states, left out."""
    kinds = get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    return {
        name: Option(kinds.get(name), _default(kinds.get(name), parameter.default))
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name != "setting"
    }


def _default(kind: Any, default: Any) -> Any:
    """TOML has no null: what may be None is None where it is left out."""
    return None if default is REQUIRED and type(None) in get_args(kind) else default


Reader = Callable[[str, Any, str], Any]


def read_options(
    options: Mapping[str, Option], given: Mapping[str, Any], place: str, readers: Mapping[Any, Reader]
) -> dict[str, Any]:
    """Every option's value, defaults filled in.

    Args:
        options: what there is.
        given: values by name.
        place: where they stand, for errors.
        readers: for kinds that are not plain: functions of an option's name, its value and its place.

    Raises:
        MismatchError: an option is unknown, is missing, or has another type.
    """
    for name in given:
        if name not in options:
            expected = one_of(options, name, "one of" if options else "no option")
            raise MismatchError(f"{place}: {expected}" if place else f"{name}: {expected}")
    values: dict[str, Any] = {}
    for name, option in options.items():
        where = f"{place}.{name}" if place else name
        if name not in given and option.default is REQUIRED:
            raise MismatchError(f"{where}: expected {words(option.kind)}, found nothing")
        if name not in given and not isinstance(option.default, str):
            values[name] = option.default
        else:
            value = given.get(name, option.default)
            kinds = _alternatives(option.kind)
            reader = next((readers[kind] for kind in kinds if kind in readers), None)
            values[name] = reader(name, value, where) if reader else read(option.kind, value, where)
    return values


def read(kind: Any, value: Any, place: str) -> Any:
    """A plain value of that kind.

    Raises:
        MismatchError: it is of another.
    """
    for each in _alternatives(kind):
        found = _as(each, value)
        if found is not None:
            return found[0]
    raise MismatchError(
        f"{place}: expected {words(kind)}, found {shown(value)}{near(_literals(kind), value)}"
    )


def _as(kind: Any, value: Any) -> tuple[Any] | None:
    """The value of that kind in a tuple, if it is."""
    origin, within = get_origin(kind), get_args(kind)
    if kind is float and type(value) in (int, float) and not math.isnan(value):
        return (float(value),)
    if kind in (bool, int, str) and type(value) is kind:
        return (value,)
    if origin is Literal and value in within:
        return (value,)
    if origin is tuple and isinstance(value, (list, tuple)):
        items = [_as(within[0], item) for item in value]
        return (tuple(item[0] for item in items if item),) if all(items) else None
    if origin in (Mapping, dict) and isinstance(value, Mapping):
        pairs = {key: _as(within[1], item) for key, item in value.items()}
        return ({key: item[0] for key, item in pairs.items() if item},) if all(pairs.values()) else None
    return None


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _literals(kind: Any) -> list[str]:
    return [n for each in _alternatives(kind) if get_origin(each) is Literal for n in get_args(each)]


def words(kind: Any) -> str:
    """What a kind is called."""
    plain = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    many = {int: "integers", float: "numbers", str: "strings"}

    def called(each: Any) -> str:
        origin, within = get_origin(each), get_args(each)
        if origin is Literal:
            return " or ".join(map(shown, within))
        if origin is tuple:
            return f"a list of {many[within[0]]}"
        if origin in (Mapping, dict):
            return f"a table of {many[within[1]]}"
        return plain.get(each, "a table")

    return " or ".join(called(each) for each in _alternatives(kind) if each is not type(None))


def shown(value: Any) -> str:
    """A value as TOML has it, more or less."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def one_of(known: Iterable[str], found: Any, kind: str = "one of") -> str:
    """What was expected and what was found, with the nearest."""
    known = list(known)
    return f"expected {' '.join([kind, ', '.join(known)]).strip()}, found {shown(found)}{near(known, found)}"


def near(known: Iterable[str], found: Any) -> str:
    """A hint at the nearest name, if one is near."""
    close = difflib.get_close_matches(found, list(known), n=1) if isinstance(found, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""
