"""Plain values, as TOML has them, checked by the annotations of what they are for.

The parameters of a constructor are its options: msgspec checks values against their names, types, bounds
(`msgspec.Meta`) and defaults, which are read from the signature, so that nothing is listed twice.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

from laconic.core.text import did_you_mean
from laconic.errors import MismatchError

AtLeastOne: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
NonNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
UnitInterval: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
HIDDEN = {"setting", "context"}  # parameters that no recipe states
TYPES = {"int": "an integer", "float": "a number", "str": "a string", "bool": "true or false"}
TYPES |= {"array": "a list", "object": "a table", "null": ""}


@dataclass(frozen=True)
class Choice:
    """A name of an axis, with all its options.

    Attributes:
        name: as the registry has it.
        options: plain values by name, defaults filled in.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@cache
def options_of(constructor: Callable[..., Any]) -> type[msgspec.Struct]:
    """The options of a constructor, as a struct."""
    of = constructor.__init__ if inspect.isclass(constructor) else constructor
    kinds = get_type_hints(of, include_extras=True)
    fields: list[Any] = []
    for name, parameter in inspect.signature(constructor).parameters.items():
        if name not in HIDDEN:
            kind, default = kinds[name], parameter.default
            if any(map(is_dataclass, (kind, *get_args(kind)))):
                kind, default = Any, None  # a choice or a table of further options, which is read apart
            elif default is inspect.Parameter.empty and NoneType in get_args(kind):
                default = None  # TOML has no null: what may be None is None where it is left out
            required = default is inspect.Parameter.empty
            fields.append((name, kind) if required else (name, kind, default))
    return msgspec.defstruct("Options", fields, kw_only=True, forbid_unknown_fields=True)


def read_fields(struct: type[msgspec.Struct], given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The value of every field of a struct, defaults filled in.

    Args:
        struct: names, types, bounds and defaults.
        given: values by name.
        place: where they stand, for errors.

    Raises:
        MismatchError: a name is unknown or missing, or a value has another type or range.
    """
    fields = {one.name: one for one in msgspec.structs.fields(struct)}
    for name in given:
        if name not in fields:
            expected = one_of(fields, name, "one of" if fields else "no option")
            raise MismatchError(f"{place}: {expected}" if place else f"{name}: {expected}")
    for name, one in fields.items():
        where = f"{place}.{name}" if place else name
        if name in given:
            _check(one.type, given[name], where)
        elif one.required:
            _check(one.type, None, where)
    return msgspec.structs.asdict(msgspec.convert(dict(given), struct))


def _check(kind: Any, value: Any, place: str) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise MismatchError(f"{place}: expected a number, found nan")
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error).partition(" - at")[0]
        bound = re.match(r"Expected `([^`]*)`(?: ([<>]=? \S+))?", message)
        if bound is None:  # a literal
            literals = [one for one in (kind, *get_args(kind)) if get_origin(one) is Literal]
            names = [name for literal in literals for name in get_args(literal)]
            numbers = ["a number"] if float in get_args(kind) else []
            expected = " or ".join([*map(repr, names), *numbers])
            hint = did_you_mean(value, names)
            raise MismatchError(f"{place}: expected {expected}, found {shown(value)}{hint}") from error
        types = " or ".join(filter(None, (TYPES.get(one, one) for one in bound[1].split(" | "))))
        expected = f"{types} {bound[2]}" if bound[2] else types
        raise MismatchError(f"{place}: expected {expected}, found {shown(value)}") from error


def shown(value: Any) -> str:
    """A value as TOML has it, more or less."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def one_of(known: Iterable[str], found: Any, kind: str = "one of") -> str:
    """What was expected and what was found, with the nearest name."""
    known = list(known)
    expected = f"{kind} {', '.join(known)}".strip()
    return f"expected {expected}, found {shown(found)}{did_you_mean(found, known)}"
