"""Reading recipes, and refusing choices that do not go together before anything is run."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from torch import nn

from laconic.errors import MismatchError
from laconic.model.evidence import MOVEMENT
from laconic.pruning.criteria import CRITERIA
from laconic.recipes.methods import Count, Traits
from laconic.recipes.options import AtLeastOne, Choice, UnitInterval, one_of, options_of, read_fields, shown
from laconic.recipes.recipe import Fitting, Recipe
from laconic.recipes.registry import BY_AMOUNT, COUPLED, Setting, build, kebab, names_of, needs_setting

NOWHERE = Setting(nn.Identity(), None)
DEFAULTS = {"criterion": "magnitude", "unit": "weight", "scope": "model", "budget": "density", "solver": "cut"}
Refusals: TypeAlias = Iterator[tuple[str, str, str]]  # place, what is expected, what is found


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
    try:
        recipe = _parsed(_without_shorthands(values))
        _check(recipe)
    except ValueError as error:  # MismatchError is one, and so is what constructors raise
        raise MismatchError(f"{place}: {error}") from error
    return recipe


class _RecipeKeys(msgspec.Struct, kw_only=True):
    amount: UnitInterval | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    calibration: AtLeastOne = 1024
    reestimate: bool = False
    relative_error: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    seed: Count = 0
    method: Any = "one-shot"
    criterion: Any = None
    unit: Any = None
    scope: Any = None
    budget: Any = None
    solver: Any = None
    dense: Any = None
    training: Any = None


class _FittingKeys(msgspec.Struct, kw_only=True):
    epochs: AtLeastOne
    optimizer: Any = "adam"
    scheduler: Any = "constant"
    batch_size: AtLeastOne | None = None


def _parsed(values: Mapping[str, Any]) -> Recipe:
    found = read_fields(_RecipeKeys, values, "")
    method = _choice("method", found["method"], "method")
    used = traits_of(method).axes
    for axis, default in DEFAULTS.items():
        name = values.get(axis, default if axis in used else None)
        found[axis] = None if name is None else _choice(axis, name, axis)
    for table in ("dense", "training"):
        found[table] = None if found[table] is None else _read_fitting(found[table], table)
    return Recipe(**{**found, "method": method})


def _read_fitting(value: Any, place: str) -> Fitting:
    if not isinstance(value, Mapping):
        raise MismatchError(f"{place}: expected a table, found {shown(value)}")
    found = read_fields(_FittingKeys, value, place)
    choices = {axis: _choice(axis, found[axis], f"{place}.{axis}") for axis in ("optimizer", "scheduler")}
    return Fitting(**{**found, **choices})


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
    """Refuse a recipe that cannot be run on any model.

    Raises:
        MismatchError: two choices contradict each other.
        ValueError: as the constructors of what is chosen raise it.
    """
    for axis in ("criterion", "unit", "scope", "budget", "solver"):
        choice = getattr(recipe, axis)
        if choice is not None and not needs_setting(axis, choice.name):
            _build(axis, axis, choice)
    for place in ("dense", "training"):
        if fitting := getattr(recipe, place):
            make = _build(f"{place}.optimizer", "optimizer", fitting.optimizer)
            try:
                make([nn.Parameter()])
            except ValueError as error:
                raise MismatchError(f"{place}.optimizer {fitting.optimizer.name}: {error}") from error
    for place, expected, found in _contradictions(recipe):
        raise MismatchError(f"{place}: expected {expected}, found {found}")


def _build(place: str, axis: str, choice: Choice) -> Any:
    try:
        return build(axis, choice, NOWHERE)
    except ValueError as error:
        raise MismatchError(f"{place}: {error}") from error


def _contradictions(recipe: Recipe) -> Refusals:
    name, budget = recipe.method.name, recipe.budget
    traits = traits_of(recipe.method)
    for axis in ("criterion", "unit", "scope", "budget", "solver"):
        choice = getattr(recipe, axis)
        if choice and axis not in traits.axes:
            yield axis, f"none, for which method {name} has no use", shown(choice.name)
    by_amount = budget is not None and budget.name in BY_AMOUNT
    if by_amount and recipe.amount is None:
        yield "amount", "a fraction removed, in [0, 1]", "nothing"
    if not by_amount and recipe.amount is not None:
        decides = f"budget {budget.name}" if budget else f"method {name}"
        yield "amount", f"none, as {decides} decides how much stays", str(recipe.amount)
    if traits.trains and not recipe.training:
        yield "training", f"a table [training] for method {name}", "nothing"
    if (rewind := recipe.method.options.get("rewind")) and not recipe.dense:
        yield "method.rewind", "0 without a table [dense], whose steps it counts", str(rewind)
    if recipe.unit:
        yield from _of_unit(recipe, recipe.unit.name, traits)
    if recipe.criterion and recipe.scope and budget and recipe.solver:
        yield from _of_criterion(name, recipe.criterion, budget.name, recipe.solver.name)
        yield from _of_contest(name, traits, recipe.scope.name, budget.name)


def _of_unit(recipe: Recipe, unit: str, traits: Traits) -> Refusals:
    name = recipe.method.name
    if unit in COUPLED and name == "proximal":
        yield "unit", f"weight or block for method {name}", shown(unit)
    if unit in COUPLED and recipe.scope and recipe.budget and recipe.solver:
        scope, budget, solver = recipe.scope.name, recipe.budget.name, recipe.solver.name
        if scope in ("row", "run"):
            yield "scope", f"model or tensor for unit {unit}, whose members lie across tensors", shown(scope)
        if budget == "erk":
            yield "budget", f"one that asks no tensor's shape for unit {unit}, across tensors", shown(budget)
        if solver == "sparse-gpt":
            yield "solver", f"cut or least-squares for unit {unit}", shown(solver)
    if traits.moves and unit != "weight":
        yield "unit", f"weight for method {name}, which moves single weights", shown(unit)
    if recipe.criterion and recipe.criterion.name == "norm-scale" and unit in ("weight", "block"):
        yield "criterion", f"one that has scores for unit {unit}; norm-scale is for channels", "'norm-scale'"


def _of_criterion(method: str, criterion: Choice, budget: str, solver: str) -> Refusals:
    name, built = criterion.name, build("criterion", criterion, NOWHERE)
    if budget == "price" and not built.in_bits:
        found = f"{name!r}, which only ranks"
        yield "criterion", f"one in bits ({', '.join(_in_bits())}) for budget price", found
    if MOVEMENT in built.needs and method != "gradual":
        found = f"{name!r}, which is for gradual"
        yield "criterion", f"one that is known at once for method {method}", found
    if MOVEMENT in built.needs and solver != "cut":
        yield "solver", f"cut for criterion {name}, which comes from training", shown(solver)


def _in_bits() -> list[str]:
    return [kebab(name) for name, criterion in CRITERIA.items() if criterion.in_bits]


def _of_contest(name: str, traits: Traits, scope: str, budget: str) -> Refusals:
    if budget in ("erk", "rates") and scope not in ("tensor", "row"):
        yield "scope", f"tensor or row for budget {budget}, which decides for each tensor", shown(scope)
    if traits.ramps and budget not in BY_AMOUNT:
        yield "budget", f"density or erk for method {name}, whose amount grows", shown(budget)
    if traits.moves and scope == "run":
        yield "scope", f"model, tensor or row for method {name}, whose connections move", shown(scope)
