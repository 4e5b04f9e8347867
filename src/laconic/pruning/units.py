"""Units: what lives and dies together.

A unit turns what is lost with weights into what is lost with its members, per weight (`pool`), and decisions
about members into decisions about weights (`spread`). A mean per weight, not a sum, so that a large member
competes with a small one at what each would save.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from laconic.errors import MismatchError
from laconic.surgery.coupling import Coupling, Group, Part


@runtime_checkable
class Unit(Protocol):
    """Functions between weights and what lives and dies together."""

    def reach(self, chosen: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
        """The tensors that members have weights in, given those chosen to compete."""
        ...

    def even(self, shape: torch.Size) -> bool:
        """Whether a tensor's members hold equally many weights, each in one of them alone."""
        ...

    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What is lost with each member per weight, from what is lost with each weight."""
        ...

    def spare(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What is lost with each member, infinite where it must not go."""
        ...

    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Members' values for their weights, in the shapes of `like`: who stays, or a factor."""
        ...


class _InTensors:
    """A unit whose members lie each in one tensor."""

    def reach(self, chosen: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
        """`chosen` itself."""
        return chosen

    def spare(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`lost` itself: any may go."""
        return lost


@dataclass(frozen=True)
class Weight(_InTensors):
    """Every weight for itself: unstructured pruning."""

    def even(self, shape: torch.Size) -> bool:
        """True."""
        return True

    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`lost` itself."""
        return lost

    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`kept` itself."""
        return kept


@dataclass(frozen=True)
class Block(_InTensors):
    """Tiles of a weight's matrix (out, in · kernel); those at the edges may be smaller.

    `Block(1, None)` is a neuron or a filter with its inputs, `Block(None, 1)` an input with all that it
    feeds.

    Attributes:
        height: rows of a tile; None for all.
        width: columns of a tile; None for all.
    """

    height: int | None
    width: int | None

    def __post_init__(self) -> None:
        for side in (self.height, self.width):
            if side is not None and side < 1:
                raise ValueError(f"block: expected sides of at least 1, got {self.height} by {self.width}")

    def even(self, shape: torch.Size) -> bool:
        """Whether the tiles divide the matrix."""
        (rows, height), (columns, width) = self._sides(shape)
        return rows % height == 0 and columns % width == 0

    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Means of the tiles, (tiles down, tiles across)."""
        return {name: self._means(tensor) for name, tensor in lost.items()}

    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Each tile's value for all its weights."""
        return {name: self._tiled(tiles, like[name].shape) for name, tiles in kept.items()}

    def _sides(self, shape: torch.Size) -> tuple[tuple[int, int], tuple[int, int]]:
        """(rows, height), (columns, width), of at least one."""
        rows = shape[0] if shape else 1
        columns = math.prod(shape[1:])
        return (rows, self.height or max(rows, 1)), (columns, self.width or max(columns, 1))

    def _means(self, tensor: Tensor) -> Shaped[Tensor, "down across"]:
        (rows, height), (columns, width) = self._sides(tensor.shape)
        matrix = tensor.reshape(rows, columns)
        padding = (0, -columns % width, 0, -rows % height)
        tiles = F.pad(matrix, padding).unflatten(1, (-1, width)).unflatten(0, (-1, height))
        if self.even(tensor.shape):
            return tiles.mean((1, 3))
        counts = F.pad(torch.ones_like(matrix), padding).unflatten(1, (-1, width)).unflatten(0, (-1, height))
        return tiles.sum((1, 3)) / counts.sum((1, 3))

    def _tiled(self, tiles: Shaped[Tensor, "down across"], shape: torch.Size) -> Tensor:
        (rows, height), (columns, width) = self._sides(shape)
        matrix = tiles.repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :columns]
        return matrix.reshape(shape)


@dataclass(frozen=True)
class Coupled:
    """Channels, attention heads or whole residual blocks: what a model's graph holds together.

    Attributes:
        coupling: from `laconic.channels`, `laconic.heads` or `laconic.blocks`.
    """

    coupling: Coupling

    def reach(self, chosen: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
        """All parameters of the groups that may be cut: every weight matrix cut in rows is chosen.

        Raises:
            MismatchError: no group is left.
        """
        parameters = dict(model.named_parameters())
        groups = [group for group in self.coupling.groups if _produced(group, parameters) <= chosen.keys()]
        covered = {part.tensor for group in groups for part in group.parts}
        reached = {name: tensor for name, tensor in parameters.items() if name in covered}
        if not reached:
            raise MismatchError("no group of this coupling has all its weights chosen; what is excluded?")
        return reached

    def even(self, shape: torch.Size) -> bool:
        """False: weights lie where the channels of two groups cross."""
        return False

    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Means over the weights of each member that `lost` speaks of, by group."""
        pooled = {group.name: _mean(group, lost) for group in self.coupling.groups}
        return {name: mean for name, mean in pooled.items() if mean is not None}

    def spare(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The member of each group with the most to lose, the first of equals, is worth anything.

        A layer without channels is none. Residual blocks may all go.
        """
        bypassed = {group.name for group in self.coupling.groups if group.bypassed}
        return {n: t if n in bypassed else t.index_fill(0, t.argmax(), torch.inf) for n, t in lost.items()}

    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The product over all members that a weight belongs to: it stays if all of them do."""
        kind = next((values.dtype for values in kept.values()), torch.bool)
        spread = {name: torch.ones(t.shape, dtype=kind, device=t.device) for name, t in like.items()}
        for group in self.coupling.groups:
            for part in group.parts if group.name in kept else ():
                if part.tensor in spread:
                    tensor = spread[part.tensor]
                    spread[part.tensor] = tensor * _along(part, kept[group.name], tensor)
        return spread


def _along(part: Part, values: Shaped[Tensor, " members"], tensor: Tensor) -> Tensor:
    """The members' values at their places on the part's axis, one elsewhere."""
    along = torch.ones(tensor.shape[part.axis], dtype=values.dtype, device=tensor.device)
    index = part.index.to(tensor.device)
    along = along.index_put((index,), values.to(tensor.device)[:, None].expand(index.shape))
    return along.reshape(-1, *[1] * (tensor.ndim - 1 - part.axis))


def _produced(group: Group, parameters: Mapping[str, Tensor]) -> set[str]:
    return {
        p.tensor
        for p in group.parts
        if p.axis == 0 and p.tensor in parameters and parameters[p.tensor].ndim > 1
    }


def _mean(group: Group, lost: Mapping[str, Tensor]) -> Shaped[Tensor, " members"] | None:
    total, count = 0, 0
    for part in group.parts:
        if part.tensor in lost:
            tensor = lost[part.tensor].movedim(part.axis, 0).flatten(1 if lost[part.tensor].ndim > 1 else 0)
            along = tensor.double() if tensor.ndim == 1 else tensor.double().sum(1)
            total = total + along[part.index.to(along.device)].sum(1)
            count += part.index.shape[1] * tensor[0].numel()
    return total / count if isinstance(total, Tensor) else None
