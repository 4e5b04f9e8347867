"""Text for people: what the terminal shows, short numbers, hints at the nearest name."""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

MAX_LISTED = 8


def as_text(renderable: Any) -> str:
    """What rich prints of `renderable` in 80 columns, without colours."""
    from rich.console import Console

    out = io.StringIO()
    Console(width=80, file=out).print(renderable)
    return out.getvalue()


def simple_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of plain text, whose cells wrap anywhere."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def short(value: float) -> str:
    """Three digits and an SI prefix: ``2.36M``."""
    for unit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{prefix}"
    return f"{value:.3g}"


def elided(text: str, width: int) -> str:
    """Text in at most `width` characters; ``…`` replaces the middle of longer text, of which the end says more."""
    if len(text) <= width:
        return text
    first = (width - 1) * 2 // 5
    return f"{text[:first]}…{text[len(text) - (width - 1 - first) :]}"


def kind(found: object) -> str:
    """What a value is, to end an error with: ``a list``; ``none`` for None."""
    return "none" if found is None else f"a {type(found).__name__}"


def listed(names: Iterable[object]) -> str:
    """The first few names, in one line whatever is in them."""
    found = [name if name.isprintable() else repr(name) for name in map(str, names)]
    return ", ".join(found[:MAX_LISTED]) + (f" and {len(found) - MAX_LISTED} more" if found[MAX_LISTED:] else "")


def did_you_mean(found: object, known: Iterable[str], n: int = 1) -> str:
    """A hint, to end an error with, at up to `n` of the `known` names; empty where none is near."""
    close = difflib.get_close_matches(found, list(known), n) if isinstance(found, str) else []
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
