"""Choices that do not go together, refused before anything is run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from laconic.errors import MismatchError
from laconic.evidence import MOVEMENT
from laconic.recipes.axes import AXES, BY_AMOUNT, COUPLED, Setting, build, needs_setting
from laconic.recipes.options import Choice, shown

if TYPE_CHECKING:
    from laconic.recipes.recipe import Fitting, Recipe

NOWHERE = Setting(nn.Identity(), None)


def check(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be run on any model.

    Raises:
        MismatchError: two choices contradict each other, or a value is out of range.
        ValueError: as the constructors of what is chosen raise it.
    """
    for axis in ("method", "criterion", "unit", "scope", "budget", "solver"):
        choice = getattr(recipe, axis)
        if choice is not None and not needs_setting(axis, choice.name):
            _build(axis, axis, choice)
    for place in ("dense", "training"):
        if fitting := getattr(recipe, place):
            _check_fitting(place, fitting)
    _check_numbers(recipe)
    for place, expected, found in _contradictions(recipe):
        raise MismatchError(f"{place}: expected {expected}, found {found}")


def _build(place: str, axis: str, choice: Choice) -> Any:
    try:
        return build(axis, choice, NOWHERE)
    except ValueError as error:
        raise MismatchError(f"{place}: {error}") from error


def _check_fitting(place: str, fitting: Fitting) -> None:
    for name, value in (("epochs", fitting.epochs), ("batch_size", fitting.batch_size)):
        if value is not None and value < 1:
            raise MismatchError(f"{place}.{name}: expected at least 1, found {value}")
    make = _build(f"{place}.optimizer", "optimizer", fitting.optimizer)
    try:
        make([nn.Parameter()])
    except ValueError as error:
        raise MismatchError(f"{place}.optimizer {fitting.optimizer.name}: {error}") from error


def _check_numbers(recipe: Recipe) -> None:
    if recipe.amount is not None and not 0 <= recipe.amount <= 1:
        raise MismatchError(f"amount: expected a fraction within [0, 1], found {recipe.amount}")
    if not 0 <= recipe.relative_error < 1:
        raise MismatchError(f"relative_error: expected within [0, 1), found {recipe.relative_error}")
    for name in ("calibration", "seed"):
        value, least = getattr(recipe, name), {"calibration": 1, "seed": 0}[name]
        if value < least:
            raise MismatchError(f"{name}: expected at least {least}, found {value}")


Refusals = Iterator[tuple[str, str, str]]  # place, what is expected, what is found


def _contradictions(recipe: Recipe) -> Refusals:
    name, budget = recipe.method.name, recipe.budget
    method: Any = AXES["method"][name]
    for axis in ("criterion", "unit", "scope", "budget", "solver"):
        choice = getattr(recipe, axis)
        if choice and axis not in method.axes:
            yield axis, f"none, for which method {name} has no use", shown(choice.name)
    by_amount = budget is not None and budget.name in BY_AMOUNT
    if by_amount and recipe.amount is None:
        yield "amount", "a fraction removed, in [0, 1]", "nothing"
    if not by_amount and recipe.amount is not None:
        decides = f"budget {budget.name}" if budget else f"method {name}"
        yield "amount", f"none, as {decides} decides how much stays", str(recipe.amount)
    if method.trains and not recipe.training:
        yield "training", f"a table [training] for method {name}", "nothing"
    if (rewind := recipe.method.options.get("rewind")) and not recipe.dense:
        yield "method.rewind", "0 without a table [dense], whose steps it counts", str(rewind)
    if recipe.unit:
        yield from _of_unit(recipe, recipe.unit.name, method)
    if recipe.criterion and recipe.scope and budget and recipe.solver:
        yield from _of_criterion(name, recipe.criterion, budget.name, recipe.solver.name)
        yield from _of_contest(name, method, recipe.scope.name, budget.name)


def _of_unit(recipe: Recipe, unit: str, method: Any) -> Refusals:
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
    if method.moves and unit != "weight":
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
    plain = [name for name in AXES["criterion"] if not needs_setting("criterion", name)]
    return [name for name in plain if AXES["criterion"][name]().in_bits]


def _of_contest(name: str, method: Any, scope: str, budget: str) -> Refusals:
    if budget in ("erk", "rates") and scope not in ("tensor", "row"):
        yield "scope", f"tensor or row for budget {budget}, which decides for each tensor", shown(scope)
    if method.ramps and budget not in BY_AMOUNT:
        yield "budget", f"density or erk for method {name}, whose amount grows", shown(budget)
    if method.moves and scope == "run":
        yield "scope", f"model, tensor or row for method {name}, whose connections move", shown(scope)
