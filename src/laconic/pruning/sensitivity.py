"""The sensitivity scan: what a network loses when one tensor alone is pruned (Li et al. 2017, section 3.2).

Tensors differ by orders of magnitude in what they tolerate. The scan prunes each by itself, at several amounts, on a
copy, and evaluates every copy: tensors × amounts values. They give a budget of `Rates` that removes as much of each
tensor as a tolerance allows. The losses of tensors that are pruned together add up: measure the total again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TypeAlias

from torch import nn

from laconic.core.atomic import atomic
from laconic.errors import FormatError, MismatchError
from laconic.model.evidence import NO_EVIDENCE, Evidence
from laconic.model.modules import copied, state_digest, unwrap
from laconic.model.objective import as_number
from laconic.pruning.budgets import Rates
from laconic.pruning.pruner import BY_MAGNITUDE, Pruner
from laconic.pruning.scopes import PerTensor
from laconic.pruning.units import Coupled
from laconic.surgery.plan import Coupling


@dataclass(frozen=True)
class Scan:
    """Values of a network with one of its tensors pruned.

    Attributes:
        names: names of the tensors, or of a coupling's groups.
        amounts: the fractions removed, increasing.
        values: the network's values: a row for each name, a column for each amount.
        dense: the unpruned network's value.
    """

    names: tuple[str, ...]
    amounts: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    dense: float

    def rates(self, tolerance: float, lower_is_better: bool = False) -> Rates:
        """A budget that removes as much of each tensor as is tolerated.

        That is the largest scanned amount up to which no value is worse than the dense network's by more than
        `tolerance`. An amount counts only if all smaller ones do. A tensor that does not tolerate the smallest amount
        is left whole.

        Args:
            tolerance: largest loss of value from one tensor pruned alone, in the unit of the values.
            lower_is_better: values are losses, such as bits; by default they are gains, such as accuracies.

        Returns:
            A budget for scopes within tensors: ``prune_(model, rates, scope=PerTensor())``.

        Raises:
            ValueError: the tolerance is negative.
        """
        if not tolerance >= 0:
            raise ValueError(f"tolerance: expected 0 or more, got {tolerance}")
        removed = dict.fromkeys(self.names, 0.0)
        for name, losses in zip(self.names, self.losses(lower_is_better), strict=True):
            for amount, loss in zip(self.amounts, losses, strict=True):
                if not loss <= tolerance:  # NaN is too much
                    break
                removed[name] = amount
        # The first selector that matches counts. A name that begins other names must come after them.
        order = sorted(self.names, key=lambda name: sum(o.startswith(f"{name}.") for o in self.names))
        return Rates({name: 1 - removed[name] for name in order})

    def losses(self, lower_is_better: bool = False) -> tuple[tuple[float, ...], ...]:
        """How much worse each value is than the dense network's; negative where it is better."""
        sign = 1 if lower_is_better else -1
        return tuple(tuple(sign * (value - self.dense) for value in row) for row in self.values)


def scan(  # noqa: PLR0913 – a public call
    model: nn.Module,
    amounts: Sequence[float],
    evaluate: Callable[[nn.Module], float],
    pruner: Pruner = BY_MAGNITUDE,
    evidence: Evidence = NO_EVIDENCE,
    *,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Scan:
    """Prune each tensor alone, at each amount, and evaluate the network; `model` is left as it was.

    Args:
        model: the network.
        amounts: fractions removed of a tensor, in [0, 1], increasing.
        evaluate: gives a network's value, such as ``lambda m: laconic.evaluate(m, batches).accuracy``. It receives
            copies, which it may change, for example by fine-tuning.
        pruner: which tensors are scanned (`parameters`), and how each is pruned: by default its smallest weights go.
            With a `Coupled` unit, groups are scanned, each in all its tensors. A global scope becomes `PerTensor`.
        evidence: what `pruner.needs`, from `observe`.
        path: a JSON file that is written after every evaluation. Values that it holds are not evaluated again. It
            records model, criterion, unit, scope and solver, but neither `evaluate` nor the evidence.
        progress: called after each evaluation with the numbers of evaluations done and in all.

    Raises:
        ValueError: an amount lies outside [0, 1], or they do not increase.
        MismatchError: `path` is of another model or pruner; or as from `prune_`.
        FormatError: `path` is not a scan.
    """
    amounts = tuple(amounts)
    if not amounts or not all(0 <= a <= 1 for a in amounts) or sorted(set(amounts)) != list(amounts):
        raise ValueError(f"amounts: expected increasing fractions within [0, 1], got {amounts}")
    alone = _alone(model, pruner)
    points: list[_Point] = [None, *((name, amount) for name in alone for amount in amounts)]
    of = _identity(model, pruner) if path else {}
    values = _read(Path(path), of) if path and Path(path).exists() else {}
    for done, point in enumerate(points, start=1):
        if point not in values:
            pruned = copied(unwrap(model))
            if point:
                alone[point[0]].at(point[1]).prune_(pruned, evidence)
            values[point] = as_number(evaluate(pruned), evaluate)
            if point is None and not math.isfinite(values[point]):
                raise ValueError(f"evaluate: expected a finite score of the network itself, found {values[point]}")
            if path:
                _write(Path(path), of, values)
        if progress:
            progress(done, len(points))
    rows = tuple(tuple(values[name, amount] for amount in amounts) for name in alone)
    return Scan(tuple(alone), amounts, rows, values[None])


def _alone(model: nn.Module, pruner: Pruner) -> dict[str, Pruner]:
    """For each tensor, or group of a coupling, a pruner of nothing else."""
    chosen = pruner.parameters(model)
    within = replace(pruner, scope=PerTensor()) if pruner.scope.together else pruner
    if not isinstance(pruner.unit, Coupled):
        return {
            name: replace(within, parameters=lambda copied, name=name: {name: pruner.parameters(copied)[name]})
            for name in chosen
        }
    pruner.unit.reach(chosen, unwrap(model))  # raises where no group may be cut
    alone: dict[str, Pruner] = {}
    for group in pruner.unit.coupling.groups:
        unit = Coupled(Coupling((group,), {}))
        with suppress(MismatchError):  # this group may not be cut
            unit.reach(chosen, unwrap(model))
            alone[group.name] = replace(within, unit=unit)
    return alone


_Point: TypeAlias = tuple[str, float] | None  # None: the dense network


def _read(path: Path, of: dict[str, str]) -> dict[_Point, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = dict(found["of"])
        values: dict[_Point, float] = {(str(n), float(a)): float(value) for n, a, value in found["points"]}
        if "dense" in found:
            values[None] = float(found["dense"])
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"{path}: expected a sensitivity scan: {error!r}") from error
    for what, expected in of.items():
        if known.get(what) != expected:
            raise MismatchError(f"{path}: expected {what} {expected}, found {known.get(what)}")
    return values


def _write(path: Path, of: dict[str, str], values: dict[_Point, float]) -> None:
    dense = {"dense": values[None]} if None in values else {}
    points = [[*point, value] for point, value in values.items() if point]
    with atomic(path) as file:
        file.write((json.dumps({"of": of, **dense, "points": points}) + "\n").encode())


def _identity(model: nn.Module, pruner: Pruner) -> dict[str, str]:
    """What values depend on, in words that repeat between runs: no addresses in memory, no tensors."""

    def describe(choice: object) -> str:
        if is_dataclass(choice) and not isinstance(choice, Coupled):
            return repr(choice)
        return getattr(choice, "__name__", type(choice).__name__)

    choices = {axis: describe(getattr(pruner, axis)) for axis in ("criterion", "unit", "scope", "solver")}
    return {"model": state_digest(unwrap(model).state_dict())[:12], **choices}
