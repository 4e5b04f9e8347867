"""What a run came to: its `result.json`, written last, and tables of several."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from laconic.atomic import atomic
from laconic.errors import FormatError

NAME = "result.json"


@dataclass(frozen=True)
class Outcome:
    """A network as its file decodes.

    Attributes:
        accuracy: the fraction of test cases that it gets right.
        data_bits: of the training targets, given it.
        file_bytes: the file's length.
        sparsity: the fraction of the dense network's compressible weights that are zero or cut away.
        parameters: that are not zero.
        multiply_adds: of one case, by its layers' shapes: zeros within them are multiplied too.
    """

    accuracy: float
    data_bits: float
    file_bytes: int
    sparsity: float
    parameters: int
    multiply_adds: float


@dataclass(frozen=True)
class Result:
    """A run that is done.

    Attributes:
        folder: of its files: `model.lac`, `report.html`, `recipe.toml` and its checkpoints.
        digest: of recipe, references and initial weights: the folder's name.
        recipe: as plain values.
        references: what the caller said of model and data.
        dense: the network before pruning, from a file with the same grids.
        pruned: the network in `model.lac`.
        seconds: of the session that finished the run.
        versions: of what ran.
    """

    folder: Path
    digest: str
    recipe: Mapping[str, Any]
    references: Mapping[str, str]
    dense: Outcome
    pruned: Outcome
    seconds: float
    versions: Mapping[str, str]

    def write(self) -> None:
        """Write `result.json` into the folder, whole or not at all."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
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
            dense, pruned = Outcome(**values.pop("dense")), Outcome(**values.pop("pruned"))
            return cls(folder=path.parent, dense=dense, pruned=pruned, **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FormatError(f"{path}: expected a run's result: {error}") from error


def read_results(folder: str | os.PathLike[str]) -> list[Result]:
    """The results of all finished runs in a folder of runs, by the folders' names."""
    return [Result.read(path.parent) for path in sorted(Path(folder).glob(f"*/{NAME}"))]


Format = Callable[[float], str]


def _short(value: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.0f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


MEASURES: dict[str, tuple[str, Format]] = {
    "accuracy": ("accuracy", "{:.2%}".format),
    "sparsity": ("sparsity", "{:.1%}".format),
    "parameters": ("parameters", _count),
    "multiply_adds": ("MACs", _short),
    "file_bytes": ("file bytes", _count),
}
CAPTION = "Of decoded files. Parameters: not zero. MACs: by the layers' shapes."


def _spread(outcomes: Sequence[Outcome], measure: str) -> str:
    """The mean, with the standard deviation if there are several."""
    form = MEASURES[measure][1]
    values = [float(getattr(outcome, measure)) for outcome in outcomes]
    return form(mean(values)) + (f" ± {form(stdev(values))}" if len(values) > 1 else "")


def table_of_one(results: Sequence[Result]) -> Table:
    """Dense → pruned, of one recipe's runs with different seeds."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "dense", "pruned"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for measure, (heading, _) in MEASURES.items():
        sides = [[result.dense for result in results], [result.pruned for result in results]]
        table.add_row(heading, *(_spread(side, measure) for side in sides))
    return table


def table_of_many(results: Mapping[str, Sequence[Result]]) -> Table:
    """A line for each recipe, by name; accuracies before and after."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", overflow="ellipsis", no_wrap=True)
    for heading in ("dense", "pruned", "sparsity", "params", "MACs", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, runs in results.items():
        pruned = [result.pruned for result in runs]
        rest = [MEASURES[m][1](mean(getattr(outcome, m) for outcome in pruned)) for m in list(MEASURES)[1:]]
        dense = MEASURES["accuracy"][1](mean(result.dense.accuracy for result in runs))
        table.add_row(name, dense, _spread(pruned, "accuracy"), *rest)
    return table
