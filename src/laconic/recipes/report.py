"""The report of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from laconic.description.ledger import Measurement
from laconic.model.selectors import compressible
from laconic.pruning.mask import Mask
from laconic.recipes.recipe import Recipe
from laconic.report.figures.stages import accuracy_by_active, description_bars
from laconic.report.figures.tensors import mask_maps, weight_histograms
from laconic.report.pages import Page, write_page
from laconic.report.tensor_table import TensorTable


def write_report(
    path: Path, recipe: Recipe, stages: Sequence[Measurement], dense: nn.Module, masked: nn.Module, tensors: TensorTable
) -> None:
    """Write the report of a run.

    Args:
        path: the file to write.
        recipe: what was run.
        stages: the dense network's measurement, and the pruned one's.
        dense: the network before pruning.
        masked: the network after it, with zeros where the file has nothing.
        tensors: what the file's network has of each tensor.
    """
    before, after = compressible(dense), compressible(masked)
    left = Mask({name: weight.detach() != 0 for name, weight in after.items()})
    figures = {
        "Accuracy against active parameters": accuracy_by_active(stages),
        "Bits for the model and for the data given the model": description_bars(stages),
        "Active weights, dense and at the end": weight_histograms(before, after),
        "Which weights stay": mask_maps(left),
    }
    choices = [choice.name for choice in (recipe.method, recipe.criterion, recipe.unit) if choice]
    title = f"Pruned by {', '.join(choices)}"
    settings = dict(_settings(recipe.to_dict()))
    write_page(path, Page(title, stages, figures, settings, tensors=tensors))


def _settings(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{within}{name} ")
        elif value != []:
            yield f"{within}{name}".removesuffix(" name"), str(value)
