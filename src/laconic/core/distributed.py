"""Processes that train together: who writes files, and how all come to hold the same tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, distributed


def n_ranks() -> int:
    """How many processes train together; 1 outside distributed runs."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def rank() -> int:
    """This process's number among those; 0 outside distributed runs."""
    return 0 if n_ranks() == 1 else distributed.get_rank()


def is_first() -> bool:
    """Whether this process is rank 0, the one that writes files; alone, it is."""
    return rank() == 0


def mean_of_ranks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean over ranks of each tensor, on every rank, in place; alone, the tensors given.

    Every rank must call this, with tensors of the same names, shapes and types.
    """
    if n_ranks() > 1:
        for tensor in tensors.values():
            distributed.all_reduce(tensor)
            tensor.div_(n_ranks())
    return dict(tensors)


def broadcast(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of rank 0's tensors, on every rank; alone, the tensors given.

    Every rank must call this, with tensors of the same names, shapes and types.
    """
    if n_ranks() == 1:
        return dict(tensors)
    # NCCL sends only what lies on its device, other backends what lies anywhere.
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    copies = {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}
    for copy in copies.values():
        distributed.broadcast(copy, src=0)
    return {name: copy.to(tensors[name].device) for name, copy in copies.items()}
