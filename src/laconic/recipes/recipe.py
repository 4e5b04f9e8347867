"""A recipe: every choice that makes a compression, frozen, as TOML and back.

Its digest is the SHA-256 of its canonical form, in which all defaults are filled in, so that spelling, the
order of keys, and comments do not matter. Choices that do not go together are refused before anything is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomlkit
from tomlkit.items import InlineTable
from torch import nn

from laconic.errors import MismatchError
from laconic.model.evidence import MOVEMENT
from laconic.pruning.criteria import CRITERIA
from laconic.recipes.methods import AtLeastOne, Count, Traits, UnitInterval
from laconic.recipes.registry import (
    BY_AMOUNT,
    COUPLED,
    Choice,
    Setting,
    build,
    kebab,
    names_of,
    needs_setting,
    one_of,
    options_of,
    read_fields,
    shown,
)

NOWHERE = Setting(nn.Identity(), None)
AXES_OF_PRUNER = {"criterion": "magnitude", "unit": "weight", "scope": "model", "budget": "density", "solver": "cut"}
DEFAULTS = {"optimizer": "adam", "scheduler": "constant", "method": "one-shot", **AXES_OF_PRUNER}
TABLES = ("method", "dense", "training")  # under headings of their own


@dataclass(frozen=True)
class Fitting:
    """How to train: a recipe's `[dense]` and `[training]`."""

    epochs: AtLeastOne
    optimizer: Choice
    scheduler: Choice  # stepped each epoch
    batch_size: AtLeastOne | None = None  # where the data come whole, 64 by default; batches are taken as they are


@dataclass(frozen=True)
class Recipe:
    """A choice of every axis, as plain values; None where a method has no use for an axis.

    Attributes:
        method: how pruning and training interleave.
        amount: the fraction removed, in [0, 1], where the budget asks for one.
        criterion: what is lost if a weight goes.
        unit: what lives and dies together.
        scope: who competes.
        budget: who wins.
        solver: what happens to the weights that stay.
        include: selectors of the tensors that compete, instead of the default.
        exclude: selectors of tensors that do not.
        dense: training before anything is pruned, for a model that is not trained yet.
        training: training with the method, or after it.
        calibration: training examples to observe, where criterion or solver need evidence.
        reestimate: whether batch norms' statistics are measured anew in the end, on the same examples.
        relative_error: that of the written file's grids, where training found none; 0 stores exactly.
        seed: of all that is random.
    """

    method: Choice
    amount: UnitInterval | None
    criterion: Choice | None
    unit: Choice | None
    scope: Choice | None
    budget: Choice | None
    solver: Choice | None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    dense: Fitting | None = None
    training: Fitting | None = None
    calibration: AtLeastOne = 1024
    reestimate: bool = False
    relative_error: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    seed: Count = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, defaults filled in, from which `parse_recipe` makes an equal recipe."""
        return _plain(self)

    def to_toml(self) -> str:
        """The recipe as TOML, in normal form."""
        document = tomlkit.document()
        headed = {key: value for key, value in self.to_dict().items() if key in TABLES}
        for key, value in self.to_dict().items():
            if not (key in headed and isinstance(value, Mapping)):
                document[key] = _inlined(value)
        for key, value in headed.items():
            if isinstance(value, Mapping):
                document[key] = {name: _inlined(option) for name, option in value.items()}
        return tomlkit.dumps(document)

    @property
    def digest(self) -> str:
        """12 hex digits: equal for recipes that mean the same."""
        return digest_of(self.to_dict())

    def seeded(self, seed: int) -> Recipe:
        """The same recipe with another seed."""
        return replace(self, seed=seed)


def digest_of(values: Any) -> str:
    """12 hex digits of the SHA-256 of plain values."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        options = {name: _plain(option) for name, option in value.options.items() if option is not None}
        return {"name": value.name, **options} if options else value.name
    if isinstance(value, (Recipe, Fitting)):
        plain = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {name: option for name, option in plain.items() if option is not None}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _inlined(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    table: InlineTable = tomlkit.inline_table()
    table.update({key: _inlined(item) for key, item in value.items()})
    return table


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe from a TOML file.

    Raises:
        MismatchError: it is not TOML, or no recipe; see `parse_recipe`.
        OSError: it cannot be read.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MismatchError(f"{path}: expected TOML, found an error: {error}") from error
    return parse_recipe(values, os.fspath(path))


def parse_recipe(values: Mapping[str, Any], place: str = "recipe") -> Recipe:
    """A recipe from plain values, as TOML has them.

    Args:
        values: by name; a choice is a name, or a mapping with its name and options. ``pattern = "2:4"`` stands
            for the scope and the budget of N:M sparsity, ``unit = "4x4"`` for a block.
        place: what errors begin with, such as the file's name.

    Raises:
        MismatchError: a name or an option is unknown, missing or of the wrong type, or two choices contradict
            each other.
    """
    with _place(place):
        recipe = _parsed(_without_shorthands(values))
        _check(recipe)
    return recipe


@contextmanager
def _place(place: str) -> Generator[None]:
    """Begin errors with a place: MismatchError is a ValueError, and so is what constructors raise."""
    try:
        yield
    except ValueError as error:
        raise MismatchError(f"{place}: {error}") from error


def _parsed(values: Mapping[str, Any]) -> Recipe:
    found = read_fields(options_of(Recipe), values, "")
    method = found["method"] = _choice("method", values.get("method", DEFAULTS["method"]), "method")
    for axis in AXES_OF_PRUNER:
        name = values.get(axis, DEFAULTS[axis] if axis in traits_of(method).axes else None)
        found[axis] = None if name is None else _choice(axis, name, axis)
    for place in ("dense", "training"):
        if (table := found[place]) is not None:
            if not isinstance(table, Mapping):
                raise MismatchError(f"{place}: expected a table, found {shown(table)}")
            fitting = read_fields(options_of(Fitting), table, place)
            for axis in ("optimizer", "scheduler"):
                fitting[axis] = _choice(axis, table.get(axis, DEFAULTS[axis]), f"{place}.{axis}")
            found[place] = Fitting(**fitting)
    return Recipe(**found)


def _choice(axis: str, value: Any, place: str) -> Choice:
    """A choice from its name, or from a table of its name and options."""
    name = value.get("name") if isinstance(value, Mapping) else value
    if not isinstance(name, str):
        raise MismatchError(f"{place}: expected a name, or a table with one, found {shown(value)}")
    names = names_of(axis)
    if name not in names:
        raise MismatchError(f"{place}: {one_of(names, name)}")
    given = {key: option for key, option in value.items() if key != "name"} if name is not value else {}
    return Choice(name, read_fields(options_of(names[name]), given, f"{place} {name}"))


def _without_shorthands(values: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(values)
    if "pattern" in values:
        stated = [axis for axis in ("scope", "budget") if axis in values]
        if stated:
            raise MismatchError(f"pattern: expected no {stated[0]} beside it, which it stands for, found one")
        n, length = _pair(r"(\d+):(\d+)", values.pop("pattern"), "pattern", "'2:4'")
        values["scope"], values["budget"] = {"name": "run", "length": length}, {"name": "count", "n": n}
    unit = values.get("unit")
    if isinstance(unit, str) and unit[:1].isdigit():
        height, width = _pair(r"(\d+)x(\d+)", unit, "unit", "'4x4'")
        values["unit"] = {"name": "block", "height": height, "width": width}
    return values


def _pair(form: str, value: Any, place: str, example: str) -> tuple[int, int]:
    match = re.fullmatch(form, value) if isinstance(value, str) else None
    if match is None:
        raise MismatchError(f"{place}: expected one such as {example}, found {shown(value)}")
    return int(match[1]), int(match[2])


def traits_of(method: Choice) -> Traits:
    """What a recipe must know of its method."""
    return names_of("method")[method.name].traits  # pyright: ignore[reportFunctionMemberAccess]


def _check(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be run on any model."""
    for axis in AXES_OF_PRUNER:
        choice = getattr(recipe, axis)
        if choice is not None and not needs_setting(axis, choice.name):
            with _place(axis):
                build(axis, choice, NOWHERE)
    for place in ("dense", "training"):
        if fitting := getattr(recipe, place):
            with _place(f"{place}.optimizer"):
                make = build("optimizer", fitting.optimizer, NOWHERE)
            with _place(f"{place}.optimizer {fitting.optimizer.name}"):
                make([nn.Parameter()])
    for contradicts, place, expected, found in _contradictions(recipe):
        if contradicts:
            raise MismatchError(f"{place}: expected {expected}, found {found}")


def _contradictions(recipe: Recipe) -> Iterator[tuple[object, str, str, str]]:
    """Whether choices contradict each other, with the place, what is expected there, and what is found."""
    method, traits = recipe.method.name, traits_of(recipe.method)
    names = {axis: choice.name for axis in AXES_OF_PRUNER if (choice := getattr(recipe, axis))}
    _, unit, scope, budget, solver = map(names.get, AXES_OF_PRUNER)
    for axis, name in names.items():
        yield axis not in traits.axes, axis, f"none, for which method {method} has no use", shown(name)
    amount, by_amount = recipe.amount, budget in BY_AMOUNT
    decides = f"budget {budget}" if budget else f"method {method}"
    yield by_amount and amount is None, "amount", "a fraction removed, in [0, 1]", "nothing"
    needless = f"none, as {decides} decides how much stays"
    yield not by_amount and amount is not None, "amount", needless, str(amount)
    untrained = traits.trains and not recipe.training
    yield untrained, "training", f"a table [training] for method {method}", "nothing"
    rewind = recipe.method.options.get("rewind")
    counted = "0 without a table [dense], whose steps it counts"
    yield rewind and not recipe.dense, "method.rewind", counted, str(rewind)
    coupled, contest = unit in COUPLED, scope and budget and solver
    yield coupled and method == "proximal", "unit", f"weight or block for method {method}", shown(unit)
    across = coupled and contest
    within = f"model or tensor for unit {unit}, whose members lie across tensors"
    yield across and scope in ("row", "run"), "scope", within, shown(scope)
    shapeless = f"one that asks no tensor's shape for unit {unit}, across tensors"
    yield across and budget == "erk", "budget", shapeless, shown(budget)
    yield across and solver == "sparse-gpt", "solver", f"cut or least-squares for unit {unit}", shown(solver)
    single = f"weight for method {method}, which moves single weights"
    yield traits.moves and unit not in (None, "weight"), "unit", single, shown(unit)
    if recipe.criterion:
        yield from _of_criterion(recipe.criterion, method, names)
    if recipe.criterion and contest:
        each = f"tensor or row for budget {budget}, which decides for each tensor"
        yield budget in ("erk", "rates") and scope not in ("tensor", "row"), "scope", each, shown(scope)
        grows = f"density or erk for method {method}, whose amount grows"
        yield traits.ramps and not by_amount, "budget", grows, shown(budget)
        moves = f"model, tensor or row for method {method}, whose connections move"
        yield traits.moves and scope == "run", "scope", moves, shown(scope)


def _of_criterion(choice: Choice, method: str, names: Mapping[str, str]) -> Iterator[tuple[object, str, str, str]]:
    criterion, unit, contest = choice.name, names.get("unit"), {"scope", "budget", "solver"} <= names.keys()
    built = build("criterion", choice, NOWHERE)
    scored = f"one that has scores for unit {unit}; norm-scale is for channels"
    yield criterion == "norm-scale" and unit in ("weight", "block"), "criterion", scored, "'norm-scale'"
    if contest:
        in_bits = ", ".join(kebab(name) for name, known in CRITERIA.items() if known.in_bits)
        ranks, moving = not built.in_bits, MOVEMENT in built.needs
        priced = f"one in bits ({in_bits}) for budget price"
        yield names["budget"] == "price" and ranks, "criterion", priced, f"{criterion!r}, which only ranks"
        at_once = f"one that is known at once for method {method}"
        yield moving and method != "gradual", "criterion", at_once, f"{criterion!r}, which is for gradual"
        trained = f"cut for criterion {criterion}, which comes from training"
        yield moving and names["solver"] != "cut", "solver", trained, shown(names["solver"])
