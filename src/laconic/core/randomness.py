"""Random numbers that depend on the step, not the history: equal on every rank, and after resuming."""

from __future__ import annotations

import torch

STRIDE = 1_000_003
CPU = torch.device("cpu")


def generator(seed: int, step: int, device: torch.device = CPU) -> torch.Generator:
    """A generator seeded by (seed, step); its numbers differ between kinds of device."""
    return torch.Generator(device).manual_seed((seed * STRIDE + step) % 2**63)
