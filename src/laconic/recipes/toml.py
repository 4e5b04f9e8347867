"""Writing TOML: the normal form of plain values. Python reads it, but does not write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_toml(values: Mapping[str, Any], headed: tuple[str, ...] = ()) -> str:
    """Plain values as a TOML document; None is left out, and tables that are `headed` come last."""
    below = {key: value for key, value in values.items() if key in headed and isinstance(value, Mapping)}
    lines = _lines({key: value for key, value in values.items() if key not in below})
    for key, table in below.items():
        lines += ["", f"[{_key(key)}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):  # JSON's escapes are TOML's, but for a character that JSON leaves bare
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(_lines(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
