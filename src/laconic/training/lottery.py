"""Lottery tickets: a mask found late, trained from early weights (Frankle & Carbin 2019).

Iterative magnitude pruning with rewinding is `iterative` with ``rewind=`` the weights of an early step k
(Frankle et al. 2020), which the callback `Snapshot` saves. Its controls say what the ticket owes to what: the
same mask on fresh weights (`reinitialize_`), and as many weights of each layer elsewhere (`shuffled`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from laconic.core import distributed
from laconic.core.randomness import generator
from laconic.errors import UnsupportedError
from laconic.model.modules import unwrap
from laconic.pruning.mask import Mask
from laconic.training.checkpoint import load_state, save_state
from laconic.training.loop import Progress


class Snapshot:
    """A callback of `train` that writes the model's state after step `step` to a file.

    A file, so that a run that resumes beyond that step still has it.

    Args:
        path: of the file.
        step: when to write it, from 1; for the weights before the first step, copy `state_dict()`.

    Raises:
        ValueError: `step` is below 1.
    """

    def __init__(self, path: str | os.PathLike[str], step: int) -> None:
        if step < 1:
            raise ValueError(f"snapshot: expected a step from 1, found {step}")
        self.path, self.step = Path(path), step

    def __call__(self, progress: Progress) -> None:
        """Write the state, on rank 0, if this is the step."""
        if progress.step == self.step and distributed.is_first():
            save_state(self.path, progress.model.state_dict())

    @property
    def state(self) -> dict[str, Any]:
        """The state that was written.

        Raises:
            FormatError: the file is damaged.
            FileNotFoundError: the step has not been reached.
        """
        return load_state(self.path)


def shuffled(mask: Mask, seed: int = 0) -> Mask:
    """The mask with every tensor's places permuted: each keeps exactly as many weights as before."""
    draw = generator(seed, 0)
    orders = {name: torch.randperm(kept.numel(), generator=draw) for name, kept in mask.items()}
    return Mask({n: kept.flatten()[orders[n].to(kept.device)].view_as(kept) for n, kept in mask.items()})


def reinitialize_(model: nn.Module, seed: int = 0) -> None:
    """Draw all of a model's weights anew, by its layers' own `reset_parameters`, in place.

    Buffers that layers reset, such as running means, are reset as well. The global random state is left as it
    was.

    Raises:
        UnsupportedError: a module has parameters and no `reset_parameters`; the model is untouched.
    """
    resets = [(name, module, _reset_of(module)) for name, module in unwrap(model).named_modules()]
    for name, module, reset in resets:
        if reset is None and next(module.parameters(recurse=False), None) is not None:
            raise UnsupportedError(f"{name}: {type(module).__name__} has parameters and no reset_parameters")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _, _, reset in resets:
            if reset is not None:
                reset()


def _reset_of(module: nn.Module) -> Callable[[], None] | None:
    return getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
