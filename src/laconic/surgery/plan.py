"""Plans: which positions of which axes stay, as pure data.

A plan is made once, from a coupling and a mask, and replayed on any copy of the dense model, by `shrink`,
`shrink_` or a file's `load`: without a trace, without torch-pruning, without pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from laconic.errors import MismatchError, UnsupportedError
from laconic.model.modules import unwrap
from laconic.surgery.coupling import Coupling, Group, Part


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

        A member goes if the mask removes all its weights in every tensor that the mask speaks of; what the
        mask is silent on (biases, norms, statistics) follows. Members that it removes in part stay, zeros
        included.

        Args:
            coupling: the model's groups, or a choice of them.
            mask: parameter name → booleans, True where a weight stays.
            model: the dense model.

        Raises:
            UnsupportedError: no member of a group would stay.
            MismatchError: a mask's shape is not its tensor's.
        """
        groups = coupling.groups if isinstance(coupling, Coupling) else tuple(coupling)
        return cls.keeping([(group, staying(group, mask)) for group in groups], model)

    @classmethod
    def keeping(cls, members: Sequence[tuple[Group, Tensor]], model: nn.Module) -> Plan:
        """The plan that keeps the members of each group that are True; raises as `of` does."""
        bypassed = {g.bypassed: g.n_returned for g, stay in members if g.bypassed and not stay.any()}
        state = unwrap(model).state_dict(keep_vars=True)
        left: dict[tuple[str, int], Tensor] = {}
        settings: dict[tuple[str, str], int] = {}
        for group, stay in members:
            parts = [part for part in group.parts if not _inside(part.tensor, bypassed)]
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
                if not _inside(module, bypassed)
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
        gone = [n for n in (*other.shapes, *other.bypassed) if _inside(n, self.bypassed)]
        if gone:
            raise MismatchError(f"{gone[0]}: the second plan has it, the first removes it")
        for name, shape in other.shapes.items():
            if name in self.shapes and self.cut_shape(name) != shape:
                raise MismatchError(
                    f"{name}: expected {other.shapes[name]}, the first plan leaves {self.cut_shape(name)}"
                )
        kept: dict[str, dict[int, Tensor]] = {}
        for name in sorted(self.kept.keys() | other.kept.keys()):
            if not _inside(name, other.bypassed):
                first, second = self.kept.get(name, {}), other.kept.get(name, {})
                both = {axis: first[axis][second[axis]] for axis in first.keys() & second.keys()}
                kept[name] = dict(sorted({**first, **second, **both}.items()))
        settings = {**self.settings, **other.settings}
        settings = {key: n for key, n in settings.items() if not _inside(key[0], other.bypassed)}
        shapes = {**other.shapes, **self.shapes}
        before = {name: n for name, n in self.bypassed.items() if not _inside(name, other.bypassed)}
        return Plan({name: shapes[name] for name in kept}, kept, settings, before | dict(other.bypassed))

    def cut(self, name: str, tensor: Tensor) -> Tensor:
        """What stays of a tensor of the dense shape; any tensor that the plan does not name, itself.

        An axis of length 1 of a tensor that broadcasts against the dense one is left alone.
        """
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
        return isinstance(other, Plan) and self._values() == other._values()

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Plan({len(self.kept)} tensors cut, {len(self.bypassed)} blocks bypassed)"

    def _values(self) -> tuple[object, ...]:
        kept = {name: {axis: k.tolist() for axis, k in axes.items()} for name, axes in self.kept.items()}
        return dict(self.shapes), kept, dict(self.settings), dict(self.bypassed)


def staying(group: Group, mask: Mapping[str, Tensor]) -> Bool[Tensor, " members"]:
    """Which members of a group keep a weight under `mask`; all, where it is silent on them."""
    spoken = [part for part in group.parts if part.tensor in mask]
    stay = torch.full((group.n,), not spoken)
    for part in spoken:
        kept = mask[part.tensor]
        if part.axis >= kept.ndim or part.index.max() >= kept.shape[part.axis]:
            raise MismatchError(
                f"{part.tensor}: mask is {tuple(kept.shape)}, group {group.name} reaches "
                f"{int(part.index.max()) + 1} along axis {part.axis}"
            )
        alive = kept.detach().cpu().movedim(part.axis, 0).reshape(kept.shape[part.axis], -1).any(1)
        stay |= alive[part.index].any(1)
    return stay


def _check_part(part: Part, state: Mapping[str, Tensor]) -> None:
    if part.tensor not in state:
        raise MismatchError(f"{part.tensor}: the coupling has it, the model does not")
    shape = tuple(state[part.tensor].shape)
    if part.axis >= len(shape) or part.index.max() >= shape[part.axis]:
        needed = int(part.index.max()) + 1
        raise MismatchError(f"{part.tensor}: coupling reaches {needed} along axis {part.axis}, tensor is {shape}")


def _inside(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
