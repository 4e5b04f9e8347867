"""A recipe: every choice that makes a compression, frozen, as TOML and back.

Its digest is the SHA-256 of its canonical form, in which all defaults are filled in, so that spelling, the
order of keys, and comments do not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from laconic.errors import MismatchError
from laconic.recipes import contradictions
from laconic.recipes.axes import AXES
from laconic.recipes.options import Choice, one_of, options_of, read_options, shown
from laconic.recipes.toml import to_toml

TABLES = ("method", "dense", "training")
DEFAULTS = {
    "criterion": "magnitude",
    "unit": "weight",
    "scope": "model",
    "budget": "density",
    "solver": "cut",
}


@dataclass(frozen=True)
class Fitting:
    """How to train: a recipe's `[dense]` and `[training]`.

    Attributes:
        epochs: passes over the training cases.
        optimizer: a choice of the axis.
        scheduler: a choice of the axis, stepped each epoch.
        batch_size: where the data come whole; 64 by default. Data that come in batches are taken as they are.
    """

    epochs: int
    optimizer: Choice = "adam"  # pyright: ignore[reportAssignmentType] – read as a choice
    scheduler: Choice = "constant"  # pyright: ignore[reportAssignmentType]
    batch_size: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A choice of every axis, as plain values; make one with `Recipe.of` or `Recipe.load`.

    What a method has no use for is None.

    Attributes:
        method: how pruning and training interleave.
        amount: the fraction removed, in [0, 1], where the budget asks for one.
        criterion: what is lost if a weight goes.
        unit: what lives and dies together.
        scope: who competes.
        budget: who wins.
        solver: what happens to the weights that stay.
        include: selectors of the tensors that compete, instead of the default (`laconic.tensors`).
        exclude: selectors of tensors that do not.
        dense: training before anything is pruned, for a model that is not trained yet.
        training: training with the method, or after it.
        calibration: training cases to observe, where criterion or solver need evidence.
        reestimate: whether batch norms' statistics are measured anew in the end, on the same cases.
        relative_error: of the written file's grids, where training found none; 0 stores exactly.
        seed: of all that is random.
    """

    method: Choice
    amount: float | None
    criterion: Choice | None
    unit: Choice | None
    scope: Choice | None
    budget: Choice | None
    solver: Choice | None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    dense: Fitting | None = None
    training: Fitting | None = None
    calibration: int = 1024
    reestimate: bool = False
    relative_error: float = 0.1
    seed: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str = "recipe") -> Recipe:
        """A recipe from plain values, as TOML has them.

        Args:
            values: by name; a choice is a name, or a mapping with its name and options. ``pattern = "2:4"``
                stands for the scope and the budget of N:M sparsity, ``unit = "4x4"`` for a block.
            place: what errors begin with, such as the file's name.

        Raises:
            MismatchError: a name or an option is unknown, missing or of the wrong type, or two choices
                contradict each other.
        """
        try:
            values = _without_shorthands(values)
            method = _choice("method", values.get("method", "one-shot"), "method")
            used = AXES["method"][method.name].axes  # pyright: ignore[reportFunctionMemberAccess]
            defaults = {axis: name for axis, name in DEFAULTS.items() if axis in used}
            given = {"method": "one-shot", **defaults, **values}
            recipe = cls(**read_options(options_of(cls), given, "", READERS))
            contradictions.check(recipe)
        except ValueError as error:  # MismatchError is one, and so is what constructors raise
            raise MismatchError(f"{place}: {error}") from error
        return recipe

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe from a TOML file.

        Raises:
            MismatchError: it is not TOML, or no recipe; see `of`.
            OSError: it cannot be read.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MismatchError(f"{path}: expected TOML, found an error: {error}") from error
        return cls.of(values, os.fspath(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, defaults filled in, from which `of` makes an equal recipe."""
        return _plain(self)

    def to_toml(self) -> str:
        """The recipe as TOML, in normal form."""
        return to_toml(self.to_dict(), TABLES)

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


def _choice(axis: str, value: Any, place: str) -> Choice:
    """A choice from its name, or from a table of its name and options."""
    if isinstance(value, Choice):
        return value
    name = value.get("name") if isinstance(value, Mapping) else value
    if not isinstance(name, str):
        raise MismatchError(f"{place}: expected a name, or a table with one, found {shown(value)}")
    if name not in AXES[axis]:
        raise MismatchError(f"{place}: {one_of(AXES[axis], name)}")
    given = {key: option for key, option in value.items() if key != "name"} if name is not value else {}
    return Choice(name, read_options(options_of(AXES[axis][name]), given, f"{place} {name}", READERS))


def _fitting(name: str, value: Any, place: str) -> Fitting:
    del name
    if not isinstance(value, Mapping):
        raise MismatchError(f"{place}: expected a table, found {shown(value)}")
    return Fitting(**read_options(options_of(Fitting), value, place, READERS))


READERS = {Choice: _choice, Fitting: _fitting}


def _without_shorthands(values: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(values)
    if "pattern" in values:
        stated = [axis for axis in ("scope", "budget") if axis in values]
        if stated:
            raise MismatchError(f"pattern: expected no {stated[0]} beside it, which it stands for, found one")
        n, length = _numbers(r"(\d+):(\d+)", values.pop("pattern"), "pattern", "'2:4'")
        values["scope"], values["budget"] = {"name": "run", "length": length}, {"name": "count", "n": n}
    unit = values.get("unit")
    if isinstance(unit, str) and unit[:1].isdigit():
        height, width = _numbers(r"(\d+)x(\d+)", unit, "unit", "'4x4'")
        values["unit"] = {"name": "block", "height": height, "width": width}
    return values


def _numbers(form: str, value: Any, place: str, example: str) -> tuple[int, int]:
    match = re.fullmatch(form, value) if isinstance(value, str) else None
    if match is None:
        raise MismatchError(f"{place}: expected one such as {example}, found {shown(value)}")
    return int(match[1]), int(match[2])
