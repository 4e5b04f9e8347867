"""Masks: which weights stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from laconic.core import distributed
from laconic.errors import MismatchError
from laconic.model.modules import unwrap


class Mask(Mapping[str, Tensor]):
    """Immutable mapping from parameter names to boolean tensors of the parameters' shapes: True where a weight stays.

    Raises:
        MismatchError: a value is not a boolean tensor.
    """

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        for name, tensor in kept.items():
            if (found := getattr(tensor, "dtype", type(tensor).__name__)) != torch.bool:
                raise MismatchError(f"{name}: expected a boolean tensor, found {found}")
        self._kept = {name: tensor.detach().clone() for name, tensor in kept.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"Mask({self.n_kept:,} of {self.numel:,} kept, in {len(self)} tensor{'s' * (len(self) != 1)})"

    @property
    def n_kept(self) -> int:
        """Number of weights that stay."""
        return sum(int(kept.count_nonzero()) for kept in self._kept.values())

    @property
    def numel(self) -> int:
        """Number of weights that the mask covers."""
        return sum(kept.numel() for kept in self._kept.values())

    @property
    def sparsity(self) -> float:
        """The fraction of weights removed."""
        return 1 - self.n_kept / self.numel if self.numel else 0.0

    def of(self, model: nn.Module) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The model's parameters with their masks, on the parameters' devices.

        Raises:
            MismatchError: the model lacks a name, or its shape differs; before anything is yielded.
        """
        parameters = dict(unwrap(model).named_parameters(remove_duplicate=False))
        for name, kept in self._kept.items():
            if name not in parameters:
                raise MismatchError(f"{name}: the mask has it, the model does not")
            if kept.shape != parameters[name].shape:
                shape = tuple(parameters[name].shape)
                raise MismatchError(f"{name}: mask is {tuple(kept.shape)}, tensor is {shape}")
        return ((parameters[n], k.to(parameters[n].device)) for n, k in self._kept.items())


def masked(weight: Float[Tensor, " *shape"], kept: Bool[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """`weight` with zeros where `kept` is False, NaN and infinity included."""
    return weight.masked_fill(~kept, 0)


@torch.no_grad()
def apply_(model: nn.Module, mask: Mask) -> None:
    """Set the weights that `mask` removes to zero, once. To keep them there in training, `hold`.

    Raises:
        MismatchError: names or shapes differ; the model is untouched.
    """
    for parameter, kept in mask.of(model):
        parameter.masked_fill_(~kept, 0)


def broadcast_mask(mask: Mask) -> Mask:
    """The mask of rank 0, on every rank.

    Masks decided from each rank's own data would let the ranks' weights drift apart. Every rank must call this, with
    masks of the same names and shapes.
    """
    if distributed.n_ranks() == 1:
        return mask
    sent = distributed.broadcast({name: kept.to(torch.uint8) for name, kept in mask.items()})
    return Mask({name: kept.bool() for name, kept in sent.items()})
