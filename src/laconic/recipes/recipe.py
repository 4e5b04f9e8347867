"""A recipe: every choice that makes a compression, frozen, as TOML and back.

Its digest is the SHA-256 of its canonical form, in which all defaults are filled in, so that spelling, the
order of keys, and comments do not matter. `laconic.recipes.validation` reads recipes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import tomlkit
from tomlkit.items import InlineTable

from laconic.recipes.options import Choice

TABLES = ("method", "dense", "training")  # under headings of their own


@dataclass(frozen=True)
class Fitting:
    """How to train: a recipe's `[dense]` and `[training]`.

    Attributes:
        epochs: passes over the training examples.
        optimizer: a choice of the axis.
        scheduler: a choice of the axis, stepped each epoch.
        batch_size: where the data come whole; 64 by default. Data that come in batches are taken as they are.
    """

    epochs: int
    optimizer: Choice
    scheduler: Choice
    batch_size: int | None = None


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
