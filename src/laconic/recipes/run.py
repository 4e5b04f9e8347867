"""A recipe's run: once, into the folder that its digest names.

The digest is of the recipe, of what the caller calls model and data, and of the model's initial state. A
folder with a `result.json` is done; one without is gone on with, and ends with the same weights, bit for bit,
as a run that was never interrupted: training goes on from checkpoints, finished rounds are loaded, and what
lies between is decided again from the same numbers.
"""

from __future__ import annotations

import copy
import io
import math
import os
import platform
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from laconic import __version__
from laconic.core.atomic import atomic
from laconic.datasets.adapter import AsTheyCome, Batch, Data, TrainTest, seeded
from laconic.description.describe import evaluate
from laconic.description.ledger import Measurement
from laconic.errors import MismatchError
from laconic.model.evidence import Evidence, observe
from laconic.model.modules import n_nonzero, state_digest, unwrap
from laconic.model.objective import split
from laconic.model.selectors import compressible
from laconic.model.tasks import IGNORED
from laconic.pruning.budgets import Price
from laconic.pruning.criteria import magnitude
from laconic.pruning.pruner import CUT, Pruner
from laconic.pruning.units import Coupled
from laconic.quantization.grid import Grid, KeepGrid
from laconic.recipes.methods import MethodContext
from laconic.recipes.recipe import AXES_OF_PRUNER, Fitting, Recipe, digest_of
from laconic.recipes.registry import Setting, build, names_of
from laconic.recipes.results import NAME, Result
from laconic.report.measurement import START, measure, total_macs
from laconic.report.pages import Page, standard_figures, write_page
from laconic.report.tensor_table import TensorTable, compare_tensors
from laconic.surgery.batch_norm import reestimate_batch_norm_
from laconic.surgery.plan import Plan
from laconic.training.iterative import Snapshot
from laconic.training.loop import Callback, ProgressBar, Training, train
from laconic.training.rules import Rule

BATCH_SIZE = 64
MIN_DENSE = 0.9  # of the weights, in a network that nobody pruned
MAX_TRAINED = 0.9  # bits of the labels given a trained network, of those by their frequencies


def run_recipe(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    folder: str | os.PathLike[str] = "runs",
    references: Mapping[str, str] | None = None,
    console: Console | None = None,
) -> Result:
    """Train, prune, write and measure `model` by `recipe`, unless that is done already.

    Args:
        recipe: every choice.
        model: the network, trained or, if the recipe has `[dense]`, not; it is not changed.
        data: a `laconic.datasets.Dataset`, or a pair (train, test) of iterables of batches, see
            `laconic.model.Objective`, or of a data set's parts.
        folder: of runs; this one's is the folder within it that its digest names.
        references: what model and data are called, such as ``{"data": "digits"}``. A run is known by them,
            by the recipe, and by the model's state: data that change must change their name.
        console: where to draw progress; by default nowhere.

    Returns:
        What came out, also if it was there already.

    Raises:
        MismatchError: recipe, model and data do not fit; before anything is trained or written.
        UnsupportedError: the model cannot be cut as the recipe asks.
        KeyboardInterrupt: on Ctrl-C. The same call goes on.
    """
    begin = time.monotonic()
    initial = copy.deepcopy(unwrap(model)).cpu()
    start = {"references": dict(references or {}), "state": state_digest(initial.state_dict())}
    home = Path(folder) / digest_of({"recipe": recipe.to_dict(), **start})
    if (home / NAME).exists():
        return Result.read(home)
    job = _Job(recipe, initial, TrainTest.of(data), home, console or Console(file=io.StringIO()))
    job.check()
    home.mkdir(parents=True, exist_ok=True)
    with atomic(home / "recipe.toml") as file:
        file.write(recipe.to_toml().encode())
    return job.run(start, begin)


@dataclass
class _Job:
    """A run that is not done."""

    recipe: Recipe
    model: nn.Module
    examples: TrainTest
    home: Path
    console: Console

    def run(self, start: Mapping[str, Any], begin: float) -> Result:
        """Everything, down to the result."""
        early = self._train_dense(start)
        before = self._measure("dense" if self._is_dense() else START, "dense.lac")[0]
        dense = copy.deepcopy(self.model).cpu()
        method = names_of("method")[self.recipe.method.name]
        method(self._context(early), **self.recipe.method.options)
        if self.recipe.reestimate:
            reestimate_batch_norm_(self.model, self.observed)
        after, decoded = self._measure("pruned", "model.lac", self._plan(dense))
        tensors = compare_tensors(dense, decoded, self.setting.inputs, after.ledger)
        nets = dense, self.model
        write_report(self.home / "report.html", self.recipe, [before, after], nets, tensors, start["references"])
        result = Result(
            folder=self.home,
            digest=self.home.name,
            recipe=self.recipe.to_dict(),
            references=start["references"],
            dense=before,
            pruned=after,
            seconds=round(time.monotonic() - begin, 3),
            versions={"laconic": __version__, "torch": torch.__version__, "python": platform.python_version()},
        )
        result.write()
        return result

    def check(self) -> None:
        """Refuse what does not fit before anything is trained, by a trial with magnitudes."""
        compressible(self.model)  # of which sparsity is counted, whatever is included
        if evaluate(self.model, self.examples.first(2, 0)).n_right is None:
            raise MismatchError("data: expected classes, since reports are of accuracies, found targets that are none")
        if not isinstance(self.pruner.budget, Price):
            replace(self.pruner, criterion=magnitude, solver=CUT).mask(self.model)
        for place in ("dense", "training"):
            fitting = getattr(self.recipe, place)
            if fitting and fitting.batch_size and isinstance(self.examples.train, AsTheyCome):
                finding = f"none, as the data come in batches, found {fitting.batch_size}"
                raise MismatchError(f"{place}.batch_size: expected {finding}")
        if dense := self.recipe.dense:
            n_steps = dense.epochs * self.examples.counts(dense.batch_size or BATCH_SIZE)[1]
            if (rewind := self._rewind) > n_steps:
                raise MismatchError(f"method.rewind: expected one of the {n_steps} steps of [dense], found {rewind}")

    @cached_property
    def observed(self) -> list[Batch]:
        """The examples to observe."""
        return self.examples.first(self.recipe.calibration, self.recipe.seed)

    @cached_property
    def setting(self) -> Setting:
        """The network and an example of its inputs."""
        return Setting(self.model, split(self.examples.first(2, 0)[0], self.model, must=False)[0], self.recipe.seed)

    @cached_property
    def pruner(self) -> Pruner:
        """The choice of the axes that the recipe has."""
        chosen = {axis: getattr(self.recipe, axis) for axis in AXES_OF_PRUNER}
        built = {axis: build(axis, choice, self.setting) for axis, choice in chosen.items() if choice}
        parameters = partial(compressible, include=self.recipe.include, exclude=self.recipe.exclude)
        pruner = Pruner(parameters=parameters, **built)
        return pruner if self.recipe.amount is None else pruner.at(self.recipe.amount)

    @property
    def _rewind(self) -> int:
        return self.recipe.method.options.get("rewind", 0)

    def _measure(self, name: str, file: str, plan: Plan | None = None) -> tuple[Measurement, nn.Module]:
        error = self.recipe.relative_error
        quantizer = KeepGrid(Grid(error)) if error else None  # training may have found grids
        with seeded(self.recipe.seed):
            measured, decoded = measure(name, self.model, self.home / file, self.examples, quantizer, plan)
        decoded = decoded.cpu()
        return replace(measured, n_macs=total_macs(decoded, self.setting.inputs)), decoded

    def _is_dense(self) -> bool:
        """Whether most weights are not zero, and the network says more of the labels than how often each occurs."""
        weights = compressible(self.model).values()
        if sum(map(n_nonzero, weights)) < MIN_DENSE * sum(weight.numel() for weight in weights):
            return False
        if self.recipe.dense is not None:
            return True
        counts = Counter[float]()
        with seeded(self.recipe.seed):
            for batch in self.examples.train.batches(BATCH_SIZE):
                found = split(batch, self.model)[1].unique(return_counts=True)
                counts.update(dict(zip(*(part.tolist() for part in found), strict=True)))
            bits = evaluate(self.model, self.examples.train.batches(BATCH_SIZE)).bits
        counts.pop(IGNORED, None)
        by_frequency = sum(-n * math.log2(n / counts.total()) for n in counts.values())
        return bits < MAX_TRAINED * by_frequency

    def _context(self, early: Mapping[str, Any]) -> MethodContext:
        fitting = self.recipe.training
        n_examples, n_batches = self.examples.counts((fitting and fitting.batch_size) or BATCH_SIZE)

        def train_by_recipe(label: str, rules: Sequence[Rule]) -> None:
            assert fitting is not None  # methods that train have one
            self._train(fitting, label, rules, self.home / f"{label}.safetensors")

        def observe_examples(model: nn.Module) -> Evidence:
            with self.console.status("observing the training examples"):
                return observe(model, self.observed, self.pruner.needs)

        return MethodContext(
            model=self.model,
            pruner=self.pruner,
            amount=self.recipe.amount or 0.0,
            seed=self.recipe.seed,
            n_examples=n_examples,
            n_steps=fitting.epochs * n_batches if fitting else 0,
            early=early,
            folder=self.home,
            observe=observe_examples,
            train=train_by_recipe,
        )

    def _train_dense(self, start: Mapping[str, Any]) -> Mapping[str, Any]:
        """Train the dense network, or load what another recipe's run has trained alike; its early state."""
        rewind = self._rewind
        early = copy.deepcopy(self.model.state_dict())
        if self.recipe.dense is None:
            return early
        plain = self.recipe.to_dict()
        digest = digest_of({"dense": plain["dense"], "seed": self.recipe.seed, "rewind": rewind, **start})
        checkpoint = self.home.parent / f"dense-{digest}.safetensors"
        snapshot = Snapshot(checkpoint.with_suffix(".early.safetensors"), rewind) if rewind else None
        self._train(self.recipe.dense, "dense", (), checkpoint, [snapshot] if snapshot else [])
        return snapshot.state if snapshot else early

    def _train(
        self, fitting: Fitting, label: str, rules: Sequence[Rule], checkpoint: Path, callbacks: Sequence[Callback] = ()
    ) -> None:
        setting = replace(self.setting, epochs=fitting.epochs)
        training = Training(
            fitting.epochs,
            optimizer=build("optimizer", fitting.optimizer, setting),
            scheduler=build("scheduler", fitting.scheduler, setting),
            seed=self.recipe.seed,
        )
        batches = self.examples.train.batches(fitting.batch_size or BATCH_SIZE, shuffle=True)
        with ProgressBar(label, self.console) as bar:
            train(self.model, batches, training, rules, [*callbacks, bar], checkpoint)

    def _plan(self, dense: nn.Module) -> Plan | None:
        """How the network is cut, where its unit is one that can be."""
        if not isinstance(self.pruner.unit, Coupled):
            return None
        left = {name: parameter.detach() != 0 for name, parameter in self.model.named_parameters()}
        return Plan.of(self.pruner.unit.coupling, left, dense)


def write_report(
    path: Path,
    recipe: Recipe,
    stages: Sequence[Measurement],
    networks: tuple[nn.Module, nn.Module],
    tensors: TensorTable,
    references: Mapping[str, str],
) -> None:
    """Write the report of a run: its two measurements, and the networks before and after, masked by zeros."""
    before, after = map(compressible, networks)
    left = {name: weight.detach() != 0 for name, weight in after.items()}
    figures = standard_figures(stages, before, after, left)
    choices = [choice.name for choice in (recipe.method, recipe.criterion, recipe.unit) if choice]
    title = f"Pruned by {', '.join(choices)}"
    settings = dict(_settings(recipe.to_dict()))
    command = command_of(["recipe.toml"], references) if "--model" in references else ""
    write_page(path, Page(title, stages, figures, settings, tensors=tensors, command=command))


def command_of(recipes: Iterable[str], options: Mapping[str, str]) -> str:
    """The command that runs recipes, to be typed again."""
    return shlex.join(["laconic", "prune", *recipes, *(word for option in options.items() for word in option)])


def _settings(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{within}{name} ")
        elif value != []:
            yield f"{within}{name}".removesuffix(" name"), str(value)
