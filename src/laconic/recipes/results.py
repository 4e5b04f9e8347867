"""What a run came to: its `result.json`, written last; and several, as trials and as tables for 80 columns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from laconic.core.atomic import atomic
from laconic.core.text import short
from laconic.description.ledger import Measurement
from laconic.errors import FormatError
from laconic.report.measurement import START, Quantity, Trial, spread

NAME = "result.json"
CAPTION = "Of decoded files. Parameters: not zero. MACs: by the layers' shapes."
HEADINGS = {
    Quantity.ACCURACY: "accuracy %",
    Quantity.SPARSITY: "sparsity %",
    Quantity.PARAMETERS: "params",
    Quantity.MULTIPLY_ADDS: "MACs",
    Quantity.FILE_BYTES: "bytes",
}


@dataclass(frozen=True)
class Result:
    """A run that is done.

    Attributes:
        folder: of its files: `model.lac`, `report.html`, `recipe.toml` and its checkpoints.
        digest: of recipe, references and initial weights: the folder's name.
        recipe: as plain values.
        references: what the caller said of model and data.
        dense: the network before pruning, from a file with the same grids; it is called ``at the start`` where that
            was no trained dense network: training began later, or it came sparse.
        pruned: the network in `model.lac`.
        seconds: of the session that finished the run.
        versions: of what ran.
    """

    folder: Path
    digest: str
    recipe: Mapping[str, Any]
    references: Mapping[str, str]
    dense: Measurement
    pruned: Measurement
    seconds: float
    versions: Mapping[str, str]

    @property
    def baseline(self) -> Measurement | None:
        """The trained dense network to compare with; None where there was none."""
        return None if self.dense.name == START else self.dense

    def write(self) -> None:
        """Write `result.json` into the folder, whole or not at all."""
        values = {name: value for name, value in vars(self).items() if name != "folder"}
        values |= {"dense": self.dense.to_dict(), "pruned": self.pruned.to_dict()}
        with atomic(self.folder / NAME) as file:
            file.write((json.dumps(values, indent=2) + "\n").encode())

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Result:
        """Read a run's folder.

        Raises:
            FormatError: its `result.json` is damaged.
            OSError: there is none.
        """
        path = Path(folder) / NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            dense, pruned = (Measurement.from_dict(values.pop("dense")), Measurement.from_dict(values.pop("pruned")))
            return cls(folder=path.parent, dense=dense, pruned=pruned, **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FormatError(f"{path}: expected a run's result: {error}") from error


def read_results(folder: str | os.PathLike[str]) -> list[Result]:
    """The results of all finished runs in a folder of runs, by the folders' names."""
    return [Result.read(path.parent) for path in sorted(Path(folder).glob(f"*/{NAME}"))]


def trials(results: Sequence[Result]) -> list[Trial]:
    """Results as frontiers take them: of equal methods that differ in amount or seed.

    A method is named by the choices that tell the runs' recipes apart, seed and amount aside.
    """
    found = [
        Trial(name, result.recipe.get("seed", 0), result.pruned, _setting(result), result.baseline)
        for name, result in zip(_names([result.recipe for result in results]), results, strict=True)
    ]
    return sorted(found, key=lambda trial: (trial.method, trial.seed))  # folders are named by digests


def _setting(result: Result) -> str:
    """All that runs of other seeds share."""
    return json.dumps({**result.recipe, "seed": None}, sort_keys=True)


def _names(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that tell apart what differs in more than seed and amount, by as few choices as that takes."""
    in_words = [
        {axis: _words(axis, choice) for axis, choice in recipe.items() if axis not in ("seed", "amount")}
        for recipe in recipes
    ]
    axes = list(dict.fromkeys(axis for choices in in_words for axis in choices))

    def names(by: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(choices.get(axis, "") for axis in by) for choices in in_words]

    n_methods = len(set(names(axes)))
    for axis in reversed(axes):
        fewer = [other for other in axes if other != axis]
        if len(set(names(fewer))) == n_methods:
            axes = fewer
    usual = [choices.get("method", "pruned") for choices in in_words]
    return [", ".join(filter(None, name)) or other for name, other in zip(names(axes), usual, strict=True)]


def _words(axis: str, choice: Any) -> str:
    """A choice in words; those that are not named themselves are named by their axis."""
    if isinstance(choice, Mapping):
        options = ", ".join(f"{name} {_words('', value)}" for name, value in choice.items() if name != "name")
        return f"{choice.get('name', axis)}{options and f' ({options})'}"
    return choice if isinstance(choice, str) else f"{axis} {choice}".strip()


def table_of_one(results: Sequence[Result]) -> Table:
    """Dense → pruned, of one recipe's runs with different seeds."""
    table = _table("", [results[0].dense.name, "pruned"])
    for quantity, heading in HEADINGS.items():
        sides = [[result.dense for result in results], [result.pruned for result in results]]
        table.add_row(heading, *(spread(side, quantity).text(quantity.form) for side in sides))
    return table


def table_of_many(results: Mapping[str, Sequence[Result]]) -> Table:
    """A line for each recipe, by name; accuracies before and after."""
    (accuracy, _), *others = HEADINGS.items()
    table = _table("recipe", ["dense %", "pruned %", *(heading for _, heading in others)])
    for name, runs in results.items():
        dense = [run.baseline for run in runs if run.baseline]
        before = accuracy.form.format(spread(dense, accuracy).mean) if dense else "–"
        pruned = [run.pruned for run in runs]
        cells = [_cell(pruned, quantity) for quantity, _ in others]
        table.add_row(name, before, spread(pruned, accuracy).text(accuracy.form), *cells)
    return table


def _cell(runs: Sequence[Measurement], quantity: Quantity) -> str:
    """A mean, with its deviation where that is of bytes; millions and more have three digits."""
    found = spread(runs, quantity)
    if found.mean >= 1e6:
        return short(found.mean)
    return found.text(quantity.form) if quantity is Quantity.FILE_BYTES else quantity.form.format(found.mean)


def _table(first: str, others: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
