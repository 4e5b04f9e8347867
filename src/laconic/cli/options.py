"""The options that commands share, and how the strings of options become values."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

with_data = partial(typer.Option, rich_help_panel="With data")
# Strings that name functions of the user's.
named, named_with_data = (partial(option, metavar="MODULE:NAME") for option in (typer.Option, with_data))
flag, flag_with_data = (partial(option, metavar="") for option in (typer.Option, with_data))  # a flag has no value
SIZE = re.compile(r"(\d[\d_,]*\.?\d*) *(?:([kMGT]i?)?B)?", re.IGNORECASE)


def n_bytes(text: str) -> int:
    """Bytes, from text such as ``200_000``, ``200kB`` or ``1.5 MiB``; BadParameter for other text."""
    found = SIZE.fullmatch(text.strip())
    if not found:
        raise typer.BadParameter(f"expected bytes such as 200000, 200kB or 1.5MiB, found {text!r}")
    number, unit = found[1].replace("_", "").replace(",", ""), (found[2] or "").lower()
    exponent = " kmgt".index(unit[0]) if unit else 0
    value = round(float(number) * (1024 if unit.endswith("i") else 1000) ** exponent)
    if value < 1:
        raise typer.BadParameter(f"expected 1 byte or more, found {text!r}")
    return value


def drop(text: str) -> float:
    """A drop of the score, from text such as ``0.01`` or, for scores within [0, 1], ``1%``."""
    number, percent = text.strip().removesuffix("%").strip(), text.strip().endswith("%")
    try:
        return float(number) / 100 if percent else float(number)
    except ValueError:
        raise typer.BadParameter(f"expected a drop such as 0.01 or 1%, found {text!r}") from None


Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")]
Force = Annotated[bool, flag("--force", help="Replace the output if it exists.")]
Key = Annotated[
    str | None,
    typer.Option(
        help="The part of a PyTorch file to read, if it has several: ema, or checkpoint.model.", metavar="KEY"
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(help="The parent whose differences are coded: a checkpoint or a .lac file.", metavar="FILE"),
]
BaseKey = Annotated[str | None, typer.Option(help="The part of the parent, as --key.", metavar="KEY")]
Threads = Annotated[int | None, typer.Option(help="By default as many as there are cores.", min=1, metavar="N")]
