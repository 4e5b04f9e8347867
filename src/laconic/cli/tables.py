"""What the command line shows while it works on a file, and what the file holds."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table


@contextmanager
def bytes_bar(label: str, total: int) -> Generator[Callable[[int], None]]:
    """A bar on standard error that counts up to `total` bytes, with their speed; yields what advances it."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda n_bytes: bar.advance(task, n_bytes)


def inspection(found: dict[str, Any]) -> Group:
    """A table of the tensors that `laconic.inspect` found, and a line on the plan."""
    title = f"{found['file']}: {found['bytes']:,} bytes, {found['bits_per_weight']:.2f} bits a weight"
    if found["parent"]:
        title += f", with differences from {found['parent'][:12]}…"
    table = Table(title=title, show_footer=True, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor", footer="all", overflow="fold")
    table.add_column("shape", footer=f"{found['weights']:,}", overflow="fold")
    table.add_column("type", footer="")
    table.add_column("zeros", justify="right", footer=_percent(found["sparsity"]))
    table.add_column("bits/w", justify="right", footer=f"{found['bits_per_weight']:.2f}")
    table.add_column("bytes", justify="right", footer=f"{found['bytes']:,}")
    for tensor in found["tensors"]:
        kind = [tensor["dtype"], tensor["method"], tensor["model"]]
        table.add_row(
            tensor["name"],
            "×".join(map(str, tensor["shape"])) or "scalar",
            f"= {tensor['tied_to']}" if tensor["tied_to"] else ", ".join(filter(None, kind)),
            _percent(tensor["sparsity"]),
            f"{tensor['bits_per_weight']:.2f}",
            f"{tensor['bytes']:,}",
        )
    return Group(table, *_plan(found["plan"]))


def _plan(plan: dict[str, Any] | None) -> list[str]:
    if plan is None:
        return []
    blocks = "block" if len(plan["bypassed"]) == 1 else "blocks"
    return [
        f"plan: {plan['elements_removed']:,} elements cut from {plan['tensors_cut']} tensors, "
        f"{len(plan['bypassed'])} {blocks} bypassed, in {plan['bytes']:,} bytes"
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
