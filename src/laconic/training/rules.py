"""Rules: what acts on a model around its optimizer's steps.

A rule is a pair (init, update) over named tensors, its state. It runs after each step of the optimizer,
through the optimizer's own hook, so it works in any training loop, with any optimizer, and leaves the
model's parameters and state_dict as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from laconic.pruning.mask import Mask, apply_
from laconic.pruning.pruner import BY_MAGNITUDE, Pruner
from laconic.training.schedules import Schedule

State: TypeAlias = Mapping[str, Tensor]


class Rule(Protocol):
    """What happens before the first step and after each."""

    def init(self, model: nn.Module) -> State:
        """Prepare `model`, and return the state before the first step."""
        ...

    def update(self, state: State, model: nn.Module, step: int) -> State:
        """Act on `model` after the optimizer's step number `step` (from 1); return the new state."""
        ...


@dataclass(frozen=True)
class Hold:
    """Keep the weights that `mask` removes at zero.

    Weights are projected after the step: masking gradients alone lets momentum and weight decay move them.
    """

    mask: Mask

    def init(self, model: nn.Module) -> State:
        """Apply the mask."""
        apply_(model, self.mask)
        return self.mask

    def update(self, state: State, model: nn.Module, step: int) -> State:
        """Apply the mask again."""
        apply_(model, self.mask)
        return state


@dataclass(frozen=True)
class Gradual:
    """Prune ever more during training (Zhu & Gupta 2017).

    Attributes:
        schedule: sparsity by step, a fraction removed.
        every: steps between two prunings, until the schedule's end.
        pruner: criterion, scope, unit and choice of tensors.
    """

    schedule: Schedule
    every: int = 100
    pruner: Pruner = BY_MAGNITUDE

    def init(self, model: nn.Module) -> State:
        """Prune to the schedule's first value."""
        return self._prune(model, 0)

    def update(self, state: State, model: nn.Module, step: int) -> State:
        """Hold the mask; every so often decide it anew among the weights that are left."""
        mask = state if isinstance(state, Mask) else Mask(state)
        apply_(model, mask)
        due = step % self.every == 0 or step == self.schedule.end
        return self._prune(model, step) if due and step <= self.schedule.end else mask

    def _prune(self, model: nn.Module, step: int) -> Mask:
        mask = self.pruner.mask(model, self.schedule(step))
        apply_(model, mask)
        return mask


class Attached:
    """A rule at work on a model and its optimizer, until `remove` or the end of a `with` block.

    Attributes:
        state: the rule's state: for pruning rules, the mask.
        step: how many steps the optimizer has taken since.
    """

    def __init__(self, rule: Rule, model: nn.Module, optimizer: Optimizer) -> None:
        self.rule, self.model, self.step = rule, model, 0
        self.state = rule.init(model)
        # Accelerate's wrapper runs no hooks; the optimizer inside does. Wrappers that move weights after
        # the inner step (Lookahead, SAM) must be hooked themselves, so no other is opened.
        inner: Any = optimizer
        if type(optimizer).__name__ == "AcceleratedOptimizer":
            inner = inner.optimizer
        self._handle = inner.register_step_post_hook(self._after_step)

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        self.step += 1
        self.state = self.rule.update(self.state, self.model, self.step)

    def state_dict(self) -> dict[str, Any]:
        """The step and the state's tensors, for a checkpoint."""
        return {"step": self.step, "state": dict(self.state)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.step, self.state = int(saved["step"]), dict(saved["state"])

    def remove(self) -> None:
        """Detach the rule; the model stays as it is."""
        self._handle.remove()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def attach(rule: Rule, model: nn.Module, optimizer: Optimizer) -> Attached:
    """Let `rule` act on `model` after every step of `optimizer`, in any training loop."""
    return Attached(rule, model, optimizer)


def hold(mask: Mask, model: nn.Module, optimizer: Optimizer) -> Attached:
    """Keep what `mask` removes at zero through every step of `optimizer`.

    Works with momentum, weight decay, torch.compile and deepcopy: nothing is attached to the model.

    Raises:
        MismatchError: the mask's names or shapes are not the model's.
    """
    return attach(Hold(mask), model, optimizer)
