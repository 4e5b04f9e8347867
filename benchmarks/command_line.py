"""The command line of every script: its docstring as help, and seeds where it has them."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence


def command_line(doc: str | None, seeds: Sequence[int] = ()) -> ArgumentParser:
    """A parser with the script's docstring; with `seeds`, it takes others in their place."""
    parser = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    if seeds:
        default = " ".join(map(str, seeds))
        parser.add_argument("--seeds", type=int, nargs="+", default=seeds, help=f"by default {default}")
    return parser
