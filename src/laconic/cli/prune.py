"""What `laconic prune` does once its arguments are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from laconic.cli.compress import function, network_of
from laconic.datasets.standard import Dataset
from laconic.errors import MismatchError
from laconic.recipes.recipe import read_recipe
from laconic.recipes.registry import rows
from laconic.recipes.results import CAPTION, Result, table_of_many, table_of_one
from laconic.recipes.run import command_of, run_recipe
from laconic.report.measurement import Trial
from laconic.report.pages import write_frontier_page


def prune(paths: Sequence[Path], references: Mapping[str, str], output: Path, seeds: Sequence[int | None]) -> None:
    """Run every recipe with every seed, None for its own, and print what came out; `references` are by option."""
    console = Console()
    functions = {option: function(option, reference) for option, reference in references.items()}
    recipes = {_label(path, paths): read_recipe(path) for path in paths}
    data = _data(functions)
    results: dict[str, list[Result]] = {}
    for label, recipe in recipes.items():
        for seed in seeds:
            seeded = recipe if seed is None else recipe.seeded(seed)
            console.print(f"{label}, seed {seeded.seed}", style="dim")
            torch.manual_seed(seeded.seed)
            model = network_of(functions["--model"], "--model")
            result = run_recipe(seeded, model, data, output, references, console)
            results.setdefault(label, []).append(result)
    table = table_of_many(results) if len(results) > 1 else table_of_one(*results.values())
    console.print(table)
    console.print(CAPTION, style="dim")
    for label, runs in results.items():
        for result in runs:
            what = f"{label}, seed {result.recipe['seed']}"
            console.print(f"Report of {what}: {result.folder / 'report.html'}", soft_wrap=True, highlight=False)
    if len(results) > 1:
        found = [
            Trial(label, result.recipe["seed"], result.pruned, label, result.baseline)
            for label, runs in results.items()
            for result in runs
        ]
        numbers = ",".join(str(seed) for seed in seeds if seed is not None)
        options = {**references, **({"--seeds": numbers} if numbers else {}), "-o": str(output)}
        command = command_of(map(str, paths), options)
        page = write_frontier_page(output / "frontier.html", "Recipes compared", found, command=command)
        console.print(f"Frontier: {page}", soft_wrap=True)


def axes() -> Table:
    """All that a recipe can choose: by axis, each choice with its options."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    last = ""
    for axis, name, options, what in rows():
        if axis != last:
            table.add_section()
            table.add_row(Text(axis, style="bold"))
        described = Text(what.replace("`", ""))
        table.add_row(f"  {name}", described.append(f"\n{options}", style="dim") if options else described)
        last = axis
    return table


def _label(path: Path, paths: Sequence[Path]) -> str:
    """A recipe's file name; its path where two are called alike."""
    return path.stem if [other.stem for other in paths].count(path.stem) == 1 else str(path)


def _data(functions: Mapping[str, Callable[[], Any]]) -> Any:
    data = functions["--data"]()
    if "--test" in functions:
        test = functions["--test"]()
        train = data.train if isinstance(data, Dataset) else data
        return train, test.test if isinstance(test, Dataset) else test
    if isinstance(data, Dataset) or (isinstance(data, tuple) and len(data) == 2):
        return data
    raise MismatchError(
        f"--data: expected a Dataset or a pair (train, test), found a {type(data).__name__}; "
        "or give the examples to judge by with --test"
    )
