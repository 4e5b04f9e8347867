"""Processes that train together: who writes files, and how all come to hold the same tensors and random numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed

STRIDE = 1_000_003
CPU = torch.device("cpu")


def n_ranks() -> int:
    """Number of processes that train together; 1 outside distributed runs."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 outside distributed runs."""
    return distributed.get_rank() if n_ranks() > 1 else 0


def is_first() -> bool:
    """Whether this process is rank 0, the one that writes files."""
    return rank() == 0


def mean_of_ranks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean over ranks of each tensor, in place; every rank must call this, with alike tensors."""
    if n_ranks() > 1:
        for tensor in tensors.values():
            distributed.all_reduce(tensor)
            tensor.div_(n_ranks())
    return dict(tensors)


def broadcast(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of rank 0's tensors, or the only rank's own; every rank must call this, with alike tensors."""
    if n_ranks() == 1:
        return dict(tensors)
    # NCCL sends only tensors on its device, other backends any.
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    copies = {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}
    for copy in copies.values():
        distributed.broadcast(copy, src=0)
    return {name: copy.to(tensors[name].device) for name, copy in copies.items()}


def generator(seed: int, step: int, device: torch.device = CPU) -> torch.Generator:
    """A generator seeded by (seed, step), not the history: its numbers are equal on every rank and after resuming.

    They differ between kinds of device.
    """
    return torch.Generator(device).manual_seed((seed * STRIDE + step) % 2**63)
