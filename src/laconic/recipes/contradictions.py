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


def _contradictions(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """(place, what was expected, what was found) for each."""
    method, name = AXES["method"][recipe.method.name], recipe.method.name
    for axis in ("criterion", "unit", "scope", "budget", "solver"):
        choice = getattr(recipe, axis)
        if choice and axis not in method.axes:  # pyright: ignore[reportFunctionMemberAccess]
            yield axis, f"none, for which method {name} has no use", shown(choice.name)
    by_amount = recipe.budget is not None and recipe.budget.name in BY_AMOUNT
    if by_amount and recipe.amount is None:
        yield "amount", "a fraction removed, in [0, 1]", "nothing"
    if not by_amount and recipe.amount is not None:
        says = f"budget {recipe.budget.name}" if recipe.budget else f"method {name}"
        yield "amount", f"none, as {says} decides how much stays", str(recipe.amount)
    if method.trains and not recipe.training:  # pyright: ignore[reportFunctionMemberAccess]
        yield "training", f"a table [training] for method {name}", "nothing"
    if recipe.method.options.get("rewind") and not recipe.dense:
        yield (
            "method.rewind",
            "0 without a table [dense], whose steps it counts",
            str(recipe.method.options["rewind"]),
        )
    if recipe.unit:
        yield from _of_unit(recipe, recipe.unit.name, method)
    if recipe.criterion and recipe.budget and recipe.scope:
        yield from _of_scores(recipe, recipe.budget.name, recipe.scope.name, method)


def _of_unit(recipe: Recipe, unit: str, method: Any) -> Iterator[tuple[str, str, str]]:
    name = recipe.method.name
    if unit in COUPLED:
        if recipe.scope and recipe.scope.name in ("row", "run"):
            yield (
                "scope",
                f"model or tensor for unit {unit}, whose members lie across tensors",
                shown(recipe.scope.name),
            )
        if recipe.budget and recipe.budget.name in ("erk", "rates"):
            yield (
                "budget",
                f"none by tensor for unit {unit}, whose members lie across them",
                shown(recipe.budget.name),
            )
        if recipe.solver and recipe.solver.name == "sparse-gpt":
            yield "solver", f"cut or least-squares for unit {unit}", "'sparse-gpt'"
        if name == "proximal":
            yield "unit", f"weight or block for method {name}", shown(unit)
    if method.moves and unit != "weight":
        yield "unit", f"weight for method {name}, which moves single weights", shown(unit)
    if recipe.criterion and recipe.criterion.name == "norm-scale" and unit in ("weight", "block"):
        yield "criterion", f"one that has scores for unit {unit}; norm-scale is for channels", "'norm-scale'"


def _of_scores(recipe: Recipe, budget: str, scope: str, method: Any) -> Iterator[tuple[str, str, str]]:
    name = recipe.method.name
    criterion = recipe.criterion.name if recipe.criterion else ""
    built = build("criterion", recipe.criterion, NOWHERE) if recipe.criterion else None
    if built and budget == "price" and not built.in_bits:
        in_bits = [
            n for n, make in AXES["criterion"].items() if not needs_setting("criterion", n) and make().in_bits
        ]
        yield (
            "criterion",
            f"one in bits ({', '.join(in_bits)}) for budget price",
            f"{criterion!r}, which only ranks",
        )
    if built and MOVEMENT in built.needs and name != "gradual":
        yield (
            "criterion",
            f"one that is known at once for method {name}",
            f"{criterion!r}, which is for gradual",
        )
    if built and MOVEMENT in built.needs and recipe.solver and recipe.solver.name != "cut":
        yield "solver", f"cut for criterion {criterion}, which comes from training", shown(recipe.solver.name)
    if budget in ("erk", "rates") and scope not in ("tensor", "row"):
        yield "scope", f"tensor or row for budget {budget}, which decides for each tensor", shown(scope)
    if method.ramps and budget not in BY_AMOUNT:
        yield "budget", f"density or erk for method {name}, whose amount grows", shown(budget)
    if method.moves and scope == "run":
        yield "scope", f"model, tensor or row for method {name}, whose connections move", "'run'"
