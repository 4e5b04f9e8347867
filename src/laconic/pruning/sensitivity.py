"""The sensitivity scan: what a network loses when one tensor alone is pruned (Li et al. 2017, section 3.2).

Tensors differ by orders of magnitude in what they bear. The scan prunes each by itself, at several amounts,
on a copy, and evaluates every copy: tensors × amounts values. From these a budget of `Rates` follows, with as
much of each tensor removed as a tolerance allows. The losses of tensors that are pruned together add up, so
what all of them cost is to be measured again.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from laconic.core.atomic import atomic
from laconic.errors import FormatError, MismatchError
from laconic.model.evidence import NO_EVIDENCE, Evidence
from laconic.model.modules import state_digest, unwrap
from laconic.pruning.budgets import Rates
from laconic.pruning.pruner import BY_MAGNITUDE, Pruner
from laconic.pruning.scopes import PerTensor
from laconic.pruning.units import Coupled
from laconic.surgery.coupling import Coupling


@dataclass(frozen=True)
class Scan:
    """What a network is worth with one of its tensors pruned.

    Attributes:
        names: of the tensors, or of a coupling's groups.
        amounts: the fractions removed, increasing.
        values: of the network, for each name a row, for each amount a column.
        dense: the value of the network as it is.
    """

    names: tuple[str, ...]
    amounts: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    dense: float

    def rates(self, tolerance: float, lower_is_better: bool = False) -> Rates:
        """A budget with the most of each tensor removed that is tolerated.

        That is the largest scanned amount up to which no value is worse than the dense network's by more than
        `tolerance`: an amount counts only if all smaller ones do, so that luck at a large one does not. Where
        the smallest is too much already, the tensor is left whole.

        Args:
            tolerance: the largest loss of value, in the unit of the values, of one tensor pruned alone.
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
        # The first selector that matches counts, and a group's name may begin another's: those come last.
        order = sorted(self.names, key=lambda name: sum(o.startswith(f"{name}.") for o in self.names))
        return Rates({name: 1 - removed[name] for name in order})

    def losses(self, lower_is_better: bool = False) -> tuple[tuple[float, ...], ...]:
        """How much worse than the dense network's each value is; negative where it is better."""
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
        evaluate: what a network is worth, such as ``lambda m: laconic.evaluate(m, batches).accuracy``. It is
            given copies, which it may change: also fine-tune.
        pruner: which tensors are scanned (`parameters`), and how one is pruned: by default the smallest of its
            weights go. With a `Coupled` unit, groups are scanned, each in all its tensors. Where all tensors
            would compete, those of a tensor or group do.
        evidence: what `pruner.needs`, from `observe`.
        path: a JSON file that is written after every evaluation. What it has is not evaluated again; it knows
            its model, criterion, unit, scope and solver, but not `evaluate`, nor the evidence.
        progress: called with the number of evaluations done and of all, after each.

    Returns:
        The values, by tensor and amount.

    Raises:
        ValueError: an amount lies outside [0, 1], or they do not increase.
        MismatchError: `path` is of another model or pruner; or as from `prune_`.
        FormatError: `path` is not a scan.
    """
    amounts = tuple(amounts)
    if not amounts or not all(0 <= a <= 1 for a in amounts) or sorted(set(amounts)) != list(amounts):
        raise ValueError(f"amounts: expected increasing fractions within [0, 1], got {amounts}")
    alone = _alone(model, pruner)
    points = [None, *((name, amount) for name in alone for amount in amounts)]
    record = _Record.opened(path, model, pruner)
    for done, point in enumerate(points, start=1):
        if point not in record.values:
            pruned = copy.deepcopy(unwrap(model))
            if point:
                alone[point[0]].at(point[1]).prune_(pruned, evidence)
            record.add(point, float(evaluate(pruned)))
        if progress:
            progress(done, len(points))
    values = tuple(tuple(record.values[name, amount] for amount in amounts) for name in alone)
    return Scan(tuple(alone), amounts, values, record.values[None])


def _alone(model: nn.Module, pruner: Pruner) -> dict[str, Pruner]:
    """For each tensor, or group of a coupling, a pruner of nothing else."""
    chosen = pruner.parameters(model)
    within = replace(pruner, scope=PerTensor()) if pruner.scope.together else pruner
    if isinstance(pruner.unit, Coupled):
        pruner.unit.reach(chosen, unwrap(model))  # raises where no group may be cut
        units = {group.name: Coupled(Coupling((group,), {})) for group in pruner.unit.coupling.groups}
        return {name: replace(within, unit=unit) for name, unit in units.items() if _may_cut(unit, chosen, model)}
    return {
        name: replace(within, parameters=lambda copied, name=name: {name: pruner.parameters(copied)[name]})
        for name in chosen
    }


def _may_cut(unit: Coupled, chosen: Mapping[str, torch.Tensor], model: nn.Module) -> bool:
    try:
        return bool(unit.reach(chosen, unwrap(model)))
    except MismatchError:
        return False


_Point: TypeAlias = tuple[str, float] | None  # None: the dense network


@dataclass
class _Record:
    """The values so far, in memory and, if there is a path, in a file."""

    path: Path | None
    of: Mapping[str, str]
    values: dict[_Point, float]

    @classmethod
    def opened(cls, path: str | os.PathLike[str] | None, model: nn.Module, pruner: Pruner) -> _Record:
        """A new record, or the one at `path`."""
        if path is None:
            return cls(None, {}, {})
        of = _identity(model, pruner)
        if not Path(path).exists():
            return cls(Path(path), of, {})
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            known, points = dict(found["of"]), [tuple(point) for point in found["points"]]
            values: dict[_Point, float] = {(str(n), float(a)): float(value) for n, a, value in points}
            if "dense" in found:
                values[None] = float(found["dense"])
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(f"{path}: expected a sensitivity scan: {error!r}") from error
        for what, expected in of.items():
            if known.get(what) != expected:
                raise MismatchError(f"{path}: expected {what} {expected}, found {known.get(what)}")
        return cls(Path(path), of, values)

    def add(self, point: _Point, value: float) -> None:
        """Keep a value, and write the file anew."""
        self.values[point] = value
        if self.path is None:
            return
        dense = {"dense": self.values[None]} if None in self.values else {}
        points = [[*point, value] for point, value in self.values.items() if point]
        with atomic(self.path) as file:
            file.write((json.dumps({"of": self.of, **dense, "points": points}) + "\n").encode())


def _identity(model: nn.Module, pruner: Pruner) -> dict[str, str]:
    """What values depend on and can be told by name: the model's state, and the choices of the pruner."""
    choices = {axis: getattr(pruner, axis) for axis in ("criterion", "unit", "scope", "solver")}
    return {
        "model": state_digest(unwrap(model).state_dict())[:12],
        **{axis: _describe_choice(choice) for axis, choice in choices.items()},
    }


def _describe_choice(choice: object) -> str:
    """A choice in words that are the same when asked again: no addresses in memory, no tensors."""
    if is_dataclass(choice) and not isinstance(choice, Coupled):
        return repr(choice)
    return getattr(choice, "__name__", type(choice).__name__)
