"""Couplings, what must be cut together, and plans, which positions of which axes stay: both pure data.

Removing a filter removes its bias, its normalisation, and the column of every layer that reads it; a residual sum makes
all its summands lose the same channels (Fang et al. 2023, DepGraph). A *group* is a set of such members. It states in
which tensors, along which axes and at which positions each member lies.

A *plan* is made once, from a coupling and a mask. `shrink`, `shrink_` or a file's `load` replay it on any copy of the
dense model, without a trace, torch-pruning or pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from laconic.core.text import as_text, listed, simple_table
from laconic.errors import MismatchError, UnsupportedError
from laconic.model.modules import unwrap

if TYPE_CHECKING:
    from rich.table import Table

RETURNS_TENSOR = 0  # how a block returns: a tensor, not a tuple


@dataclass(frozen=True, eq=False)
class Part:
    """Where a group's members lie in one tensor.

    Attributes:
        tensor: the (first) name of a parameter or buffer in the model's state_dict.
        axis: the axis along which members lie.
        index: the positions along the axis that belong to each member.
    """

    tensor: str
    axis: int
    index: Int64[Tensor, "members width"]

    def __repr__(self) -> str:
        members, width = self.index.shape
        return f"Part({self.tensor}, axis {self.axis}, {members} members of {width})"


@dataclass(frozen=True, eq=False)
class Group:
    """What lives and dies together: member i is row i of every part's index.

    Attributes:
        name: name of the first module that produces the members, of the attention, or of the residual block.
        parts: where the members lie.
        settings: (module, attribute, per member): integers that count members and do not follow from a tensor's shape.
            An attribute's new value is the number of members kept × `per member`.
        bypassed: the residual block that is replaced when its single member goes; empty for other groups.
        n_returned: what that block returns: `RETURNS_TENSOR`, or the length of a tuple that begins with the tensor.
    """

    name: str
    parts: tuple[Part, ...]
    settings: tuple[tuple[str, str, int], ...] = ()
    bypassed: str = ""
    n_returned: int = RETURNS_TENSOR

    def __repr__(self) -> str:
        return f"Group({self.name}, {self.n:,} members in {len(self.parts)} tensors)"

    @property
    def n(self) -> int:
        """Number of members."""
        return len(self.parts[0].index)


@dataclass(frozen=True, eq=False)
class Coupling:
    """The groups of a model, each tried out, and what cannot be cut.

    Attributes:
        groups: groups whose members may go in any combination that leaves one of each group (a block may go itself).
        refused: name → why its members cannot be cut.
    """

    groups: tuple[Group, ...]
    refused: Mapping[str, str]

    def __repr__(self) -> str:
        n = sum(group.n for group in self.groups)
        return f"Coupling({len(self.groups)} groups of {n:,} members, {len(self.refused)} refused)"

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        rows = [
            (group.name, f"{group.n:,}", listed(f"{part.tensor}: {part.axis}" for part in group.parts))
            for group in self.groups
        ]
        refused = [(name, "refused", why) for name, why in self.refused.items()]
        return simple_table(repr(self), ("group", "members", "lie in tensor: axis"), rows + refused)


@dataclass(frozen=True, eq=False)
class Plan:
    """How a dense model becomes a smaller one.

    Attributes:
        shapes: dense shape of each tensor that is cut, by its (first) name in the state_dict.
        kept: tensor → axis → the positions that stay: int64, increasing.
        settings: (module, attribute) → its new value.
        bypassed: residual block → how it returns (`Group.n_returned`).
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kept: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict)
    settings: Mapping[tuple[str, str], int] = field(default_factory=dict)
    bypassed: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, coupling: Coupling | Iterable[Group], mask: Mapping[str, Tensor], model: nn.Module) -> Plan:
        """The plan that cuts what `mask` removes whole.

        A member goes if the mask removes all its weights in every tensor that the mask covers; tensors that it does not
        cover (biases, norms, statistics) follow. Members that it removes in part stay, zeros included.

        Args:
            coupling: the model's groups, or a choice of them.
            mask: parameter name → booleans, True where a weight stays.
            model: the dense model.

        Raises:
            UnsupportedError: no member of a group would stay.
            MismatchError: a mask's shape is not its tensor's.
        """
        members: list[tuple[Group, Tensor]] = []
        for group in coupling.groups if isinstance(coupling, Coupling) else coupling:
            covered = [part for part in group.parts if part.tensor in mask]
            stay = torch.full((group.n,), not covered)
            for part in covered:
                kept, needed = mask[part.tensor], int(part.index.max()) + 1
                if part.axis >= kept.ndim or needed > kept.shape[part.axis]:
                    found = f"mask is {tuple(kept.shape)}, group {group.name} reaches {needed} along axis {part.axis}"
                    raise MismatchError(f"{part.tensor}: {found}")
                alive = kept.detach().cpu().movedim(part.axis, 0).reshape(kept.shape[part.axis], -1).any(1)
                stay |= alive[part.index].any(1)
            members.append((group, stay))
        return cls.keeping(members, model)

    @classmethod
    def keeping(cls, members: Sequence[tuple[Group, Tensor]], model: nn.Module) -> Plan:
        """The plan that keeps the members of each group that are True; raises as `of` does."""
        bypassed = {g.bypassed: g.n_returned for g, stay in members if g.bypassed and not stay.any()}
        state = unwrap(model).state_dict(keep_vars=True)
        left: dict[tuple[str, int], Tensor] = {}
        settings: dict[tuple[str, str], int] = {}
        for group, stay in members:
            parts = [part for part in group.parts if not inside(part.tensor, bypassed)]
            if stay.all() or group.bypassed or not parts:
                continue
            if not stay.any():
                raise UnsupportedError(f"{group.name}: expected a member to stay, found all {group.n} removed")
            for part in parts:
                _check_part(part, state)
                n = state[part.tensor].shape[part.axis]
                kept = left.setdefault((part.tensor, part.axis), torch.ones(n, dtype=torch.bool))
                kept[part.index[~stay].flatten()] = False
            settings |= {
                (module, attribute): int(stay.count_nonzero()) * each
                for module, attribute, each in group.settings
                if not inside(module, bypassed)
            }
        kept_by_name: dict[str, dict[int, Tensor]] = {}
        for (name, axis), kept in sorted(left.items()):
            kept_by_name.setdefault(name, {})[axis] = kept.nonzero().squeeze(1)
        return cls({n: tuple(state[n].shape) for n in kept_by_name}, kept_by_name, settings, bypassed)

    def then(self, other: Plan) -> Plan:
        """This plan and then `other`, made for the model that this one leaves: one plan for the dense model.

        Raises:
            MismatchError: the other plan was not made for a model that this one leaves.
        """
        if gone := [n for n in (*other.shapes, *other.bypassed) if inside(n, self.bypassed)]:
            raise MismatchError(f"{gone[0]}: the second plan has it, the first removes it")
        for name, shape in other.shapes.items():
            if name in self.shapes and self.cut_shape(name) != shape:
                raise MismatchError(f"{name}: expected {shape}, the first plan leaves {self.cut_shape(name)}")
        kept: dict[str, dict[int, Tensor]] = {}
        for name in sorted(self.kept.keys() | other.kept.keys()):
            if not inside(name, other.bypassed):
                first, second = self.kept.get(name, {}), other.kept.get(name, {})
                both = {axis: first[axis][second[axis]] for axis in first.keys() & second.keys()}
                kept[name] = dict(sorted({**first, **second, **both}.items()))
        settings = {**self.settings, **other.settings}
        settings = {key: n for key, n in settings.items() if not inside(key[0], other.bypassed)}
        shapes = {**other.shapes, **self.shapes}
        before = {name: n for name, n in self.bypassed.items() if not inside(name, other.bypassed)}
        return Plan({name: shapes[name] for name in kept}, kept, settings, before | dict(other.bypassed))

    def cut(self, name: str, tensor: Tensor) -> Tensor:
        """What stays of a tensor of the dense shape; an axis of length 1 that broadcasts against it stays."""
        for axis, kept in self.kept.get(name, {}).items():
            if tensor.shape[axis] == self.shapes[name][axis]:
                tensor = tensor.index_select(axis, kept.to(tensor.device))
        return tensor

    def cut_shape(self, name: str) -> tuple[int, ...]:
        """The shape that the plan leaves of a tensor that it names."""
        return tuple(len(self.kept[name].get(axis, range(n))) for axis, n in enumerate(self.shapes[name]))

    def __bool__(self) -> bool:
        return bool(self.kept or self.bypassed)

    def __eq__(self, other: object) -> bool:
        def values(plan: Plan) -> tuple[object, ...]:
            kept = {name: {axis: k.tolist() for axis, k in axes.items()} for name, axes in plan.kept.items()}
            return dict(plan.shapes), kept, dict(plan.settings), dict(plan.bypassed)

        return isinstance(other, Plan) and values(self) == values(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Plan({len(self.kept)} tensors cut, {len(self.bypassed)} blocks bypassed)"

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        cut = [
            (name, *("×".join(map(str, of)) for of in (shape, self.cut_shape(name))))
            for name, shape in self.shapes.items()
        ]
        return simple_table(
            repr(self), ("tensor", "dense", "cut to"), cut + [(name, "", "bypassed") for name in self.bypassed]
        )


def _check_part(part: Part, state: Mapping[str, Tensor]) -> None:
    if part.tensor not in state:
        raise MismatchError(f"{part.tensor}: the coupling has it, the model does not")
    shape, needed = tuple(state[part.tensor].shape), int(part.index.max()) + 1
    if part.axis >= len(shape) or needed > shape[part.axis]:
        raise MismatchError(f"{part.tensor}: coupling reaches {needed} along axis {part.axis}, tensor is {shape}")


def inside(name: str, modules: Iterable[str]) -> bool:
    """Whether `name` is one of the modules, or inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def dead_channels(coupling: Coupling, model: nn.Module) -> Plan:
    """The plan that cuts the channels, neurons or heads that no weight reads; one member of each group stays.

    All layers that take such a member have zero weights for it in `model`. Cutting it changes the network's outputs by
    no more than the order of sums does. `coupling` comes from `find_channels` or `find_heads`.
    """
    state = unwrap(model).state_dict()

    def read(group: Group) -> Tensor:
        """(members,) whether some layer has a weight on it; the first where none is."""
        takes = [part for part in group.parts if part.axis > 0]
        read = torch.full((group.n,), not takes)
        for part in takes:
            along = (state[part.tensor] != 0).movedim(part.axis, 0).flatten(1).any(1).cpu()
            read |= along[part.index].any(1)
        read[0] |= not read.any()
        return read

    return Plan.keeping([(group, read(group)) for group in coupling.groups if not group.bypassed], model)
