"""Units: what lives and dies together.

A unit turns what is lost with weights into what is lost with its members, per weight (`pool`), and decisions about
members into decisions about weights (`spread`). A mean per weight, not a sum, lets a large member compete with a small
one at what each would save.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from laconic.errors import MismatchError
from laconic.surgery.plan import Coupling, Group


class Unit(ABC):
    """Functions between weights and what lives and dies together.

    A unit whose members lie each in one tensor needs only `even`, `pool` and `spread`.
    """

    def reach(self, chosen: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
        """The tensors that members have weights in, given those chosen to compete; MismatchError if there are none."""
        return chosen

    def spare(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What is lost with each member, infinite for members that must stay."""
        return lost

    @abstractmethod
    def even(self, shape: torch.Size) -> bool:
        """Whether the members of a tensor of this shape hold equally many weights, each in one tensor."""

    @abstractmethod
    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Mean loss per weight of each member, from the loss of each weight."""

    @abstractmethod
    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The values of members, such as whether they stay, for each of their weights, in the shapes of `like`."""


@dataclass(frozen=True)
class Weight(Unit):
    """Every weight for itself: unstructured pruning."""

    @override
    def even(self, shape: torch.Size) -> bool:
        return True

    @override
    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return lost

    @override
    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return kept


EACH_WEIGHT = Weight()


@dataclass(frozen=True)
class Block(Unit):
    """Tiles of a weight's matrix (out, in · kernel); those at the edges may be smaller.

    `Block(1, None)` is a neuron or a filter with its inputs, `Block(None, 1)` an input with all that it feeds.

    Attributes:
        height: rows of a tile; None for all.
        width: columns of a tile; None for all.
    """

    height: int | None
    width: int | None

    def __post_init__(self) -> None:
        if any(side is not None and side < 1 for side in (self.height, self.width)):
            raise ValueError(f"block: expected sides of at least 1, got {self.height} by {self.width}")

    @override
    def even(self, shape: torch.Size) -> bool:
        (rows, height), (columns, width) = self._sides(shape)
        return rows % height == 0 and columns % width == 0

    @override
    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: self._means(tensor) for name, tensor in lost.items()}

    @override
    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: self._tiled(tiles, like[name].shape) for name, tiles in kept.items()}

    def _sides(self, shape: torch.Size) -> tuple[tuple[int, int], tuple[int, int]]:
        """(rows, height), (columns, width), with sides of at least 1."""
        rows, columns = shape[0] if shape else 1, math.prod(shape[1:])
        return (rows, self.height or max(rows, 1)), (columns, self.width or max(columns, 1))

    def _means(self, tensor: Tensor) -> Shaped[Tensor, "down across"]:
        (rows, height), (columns, width) = self._sides(tensor.shape)

        def tiles(matrix: Tensor) -> Tensor:
            padded = F.pad(matrix, (0, -columns % width, 0, -rows % height))
            return padded.unflatten(1, (-1, width)).unflatten(0, (-1, height))

        matrix = tensor.reshape(rows, columns)
        if self.even(tensor.shape):
            return tiles(matrix).mean((1, 3))
        return tiles(matrix).sum((1, 3)) / tiles(torch.ones_like(matrix)).sum((1, 3))

    def _tiled(self, tiles: Shaped[Tensor, "down across"], shape: torch.Size) -> Tensor:
        (rows, height), (columns, width) = self._sides(shape)
        return tiles.repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :columns].reshape(shape)


@dataclass(frozen=True)
class Coupled(Unit):
    """What a model's graph couples: `find_channels`, `find_heads` or `find_residual_blocks` of `laconic.surgery`."""

    coupling: Coupling

    @override
    def reach(self, chosen: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
        parameters = dict(model.named_parameters())
        matrices = {name for name, tensor in parameters.items() if tensor.ndim > 1}
        # A group may be cut if every weight matrix that it cuts in rows is chosen.
        covered = {
            part.tensor
            for group in self.coupling.groups
            if {p.tensor for p in group.parts if p.axis == 0} & matrices <= chosen.keys()
            for part in group.parts
        }
        reached = {name: tensor for name, tensor in parameters.items() if name in covered}
        if not reached:
            raise MismatchError("no group of this coupling has all its weights chosen; what is excluded?")
        return reached

    @override
    def even(self, shape: torch.Size) -> bool:
        return False  # weights lie where the channels of two groups cross

    @override
    def pool(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        pooled = {group.name: _mean(group, lost) for group in self.coupling.groups}
        return {name: mean for name, mean in pooled.items() if mean is not None}

    @override
    def spare(self, lost: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # The best member of each group is protected, so that no layer loses all its channels; blocks may all go.
        bypassed = {group.name for group in self.coupling.groups if group.bypassed}
        return {n: t if n in bypassed else t.index_fill(0, t.argmax(), torch.inf) for n, t in lost.items()}

    @override
    def spread(self, kept: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # The product over all members that a weight belongs to: it stays if all of them do.
        kind = next((values.dtype for values in kept.values()), torch.bool)
        spread = {name: torch.ones(t.shape, dtype=kind, device=t.device) for name, t in like.items()}
        for group in self.coupling.groups:
            for part in group.parts if group.name in kept else ():
                if part.tensor in spread:
                    tensor, index, values = spread[part.tensor], part.index, kept[group.name]
                    along = torch.ones(tensor.shape[part.axis], dtype=values.dtype, device=values.device)
                    along[index.to(values.device)] = values[:, None].expand(index.shape)
                    along = along.to(tensor.device).reshape(-1, *[1] * (tensor.ndim - 1 - part.axis))
                    spread[part.tensor] = tensor * along
        return spread


def _mean(group: Group, lost: Mapping[str, Tensor]) -> Shaped[Tensor, " members"] | None:
    total, count = 0, 0
    for part in group.parts:
        if part.tensor in lost:
            tensor = lost[part.tensor].movedim(part.axis, 0)
            along = tensor.double().reshape(len(tensor), -1).sum(1)
            total = total + along[part.index.to(along.device)].sum(1)
            count += part.index.shape[1] * tensor[0].numel()
    return total / count if isinstance(total, Tensor) else None
