"""Rules: what acts on a model around its optimizer's steps.

A rule is a few functions over named tensors, its state: `init`; `before` each step, when gradients belong to the
current weights; `update` after it; `finish`. They run through the optimizer's own hooks. So a rule works in any
training loop, with any optimizer, and leaves the model's parameters, forward and state_dict keys as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from laconic.core.text import kind
from laconic.errors import MismatchError, UnsupportedError, check_type
from laconic.model.modules import notice_hooks
from laconic.model.selectors import compressible
from laconic.pruning.mask import Mask, apply_, broadcast_mask

State: TypeAlias = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class StepContext:
    """What a rule sees.

    Attributes:
        model: the network in training.
        optimizer: its optimizer, without Accelerate's wrapper.
        step: number of the optimizer's steps since the rule was attached: 0 at `init`, then from 1.
    """

    model: nn.Module
    optimizer: Optimizer
    step: int = 0


class Rule(ABC):
    """What happens before the first step, around each, and after the last.

    A rule's fields are its choices. Its state, which changes, is groups of named tensors, such as
    ``{"mask": {"fc1.weight": …}}``. A checkpoint holds the state. Other randomness must come from a generator seeded by
    the step, which also makes it equal on every rank. Autograd records no function that does not enable it.
    """

    @property
    def needs_gradients(self) -> bool:
        """Whether `before` reads gradients."""
        return False

    @abstractmethod
    def init(self, now: StepContext) -> State:
        """Prepare the model; return the state before the first step.

        It may add a group of further parameters to the optimizer. They must be in the state, and leave the optimizer
        when the rule does.
        """

    def listen(self, attached: Attached) -> Sequence[RemovableHandle]:
        """Register hooks on the model, before `init`; they stay until the rule is removed.

        They must do nothing while `attached.is_deterministic`, and on copies of the model.
        """
        return []

    def before(self, state: State, now: StepContext) -> State:
        """Act before the optimizer's step `now.step`; return the new state."""
        return state

    def update(self, state: State, now: StepContext) -> State:
        """Act after the optimizer's step `now.step`; return the new state."""
        return state

    def finish(self, state: State, now: StepContext) -> None:  # noqa: B027 – most rules leave nothing to undo
        """Leave the plain, deterministic network; the optimizer stays as it is."""


def mask_of(state: State) -> Mask:
    """The mask in a state, also in one that was loaded."""
    mask = state["mask"]
    return mask if isinstance(mask, Mask) else Mask(mask)


@dataclass(frozen=True)
class Hold(Rule):
    """Keep the weights that `mask` removes at zero.

    Weights are projected after the step: masking gradients alone lets momentum and weight decay move them. With a
    random mask this is static sparse training.
    """

    mask: Mask

    @override
    def init(self, now: StepContext) -> State:
        return self.update({"mask": broadcast_mask(self.mask)}, now)  # the mask of rank 0

    @override
    def update(self, state: State, now: StepContext) -> State:
        mask = mask_of(state)
        apply_(now.model, mask)
        return {"mask": mask}


class Attached:
    """A rule at work on a model and its optimizer, until `remove` or the end of a `with` block.

    Attributes:
        state: the rule's state.
        step: number of the optimizer's steps so far.
        is_deterministic: whether the model is now what `remove` would leave.
    """

    def __init__(self, rule: Rule, model: nn.Module, optimizer: Optimizer) -> None:
        # Accelerate's wrapper runs no hooks; the optimizer inside does. Wrappers that move weights after the inner step
        # (Lookahead, SAM) must be hooked themselves, so no other is opened.
        inner: Any = optimizer
        if type(optimizer).__name__ == "AcceleratedOptimizer":
            inner = inner.optimizer
        self.rule, self.model, self.step, self.is_deterministic = rule, model, 0, False
        self._optimizer: Optimizer = inner
        self._hooks = rule.listen(self)
        if self._hooks:
            notice_hooks()
        n_groups = len(inner.param_groups)
        with torch.no_grad():
            self.state = rule.init(self._now)
        self._added = {id(p) for group in inner.param_groups[n_groups:] for p in group["params"]}
        self._handles = [
            inner.register_step_pre_hook(self._before_step),
            inner.register_step_post_hook(self._after_step),
        ]

    @property
    def mask(self) -> Mask:
        """The rule's mask; for a rule without one, the weights that `deterministic` leaves non-zero."""
        if "mask" in self.state:
            return mask_of(self.state)
        with self.deterministic() as model:
            return Mask({name: weight != 0 for name, weight in compressible(model).items()})

    @property
    def _now(self) -> StepContext:
        return StepContext(self.model, self._optimizer, self.step)

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.rule.needs_gradients:
            # The hook's positional arguments begin with the optimizer itself.
            if any(callable(arg) for arg in (*args[1:], kwargs.get("closure"))):
                raise UnsupportedError("step(closure): the rule needs gradients before the step begins")
            if getattr(optimizer, "grad_scale", None) is not None:
                raise UnsupportedError("fused optimizer: unscale its gradients before it steps")
        self.step += 1
        self.state = self.rule.before(self.state, self._now)

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        self.state = self.rule.update(self.state, self._now)

    @contextmanager
    def deterministic(self) -> Generator[nn.Module]:
        """The network that `remove` would leave, for an evaluation during training.

        Rules that keep a random sample in the parameters put their deterministic weights there inside the block; other
        rules change nothing. Do not step inside.
        """
        before = [(p, p.detach().clone()) for p in self.model.parameters()]
        self.is_deterministic = True
        with torch.no_grad():
            self.rule.finish(self.state, self._now)
        try:
            yield self.model
        finally:
            self.is_deterministic = False
            with torch.no_grad():
                for parameter, value in before:
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The step and the state's tensors, for a checkpoint."""
        return {"step": self.step, "state": {group: dict(values) for group, values in self.state.items()}}

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; parameters that the rule trains are restored in place."""

        def restored(old: Tensor, value: Tensor) -> Tensor:
            return old.copy_(value) if isinstance(old, nn.Parameter) else value.to(old.device, copy=True)

        self.step = int(saved["step"])
        self.state = {
            group: {name: restored(self.state[group][name], value) for name, value in values.items()}
            for group, values in saved["state"].items()
        }

    def remove(self) -> None:
        """Detach the rule: leave the deterministic network, and the optimizer as it was."""
        if not self._handles:
            return
        for handle in [*self._handles, *self._hooks]:
            handle.remove()
        self._handles.clear()
        if self._hooks:
            notice_hooks()
        with torch.no_grad():
            self.rule.finish(self.state, self._now)
        groups = self._optimizer.param_groups
        for parameter in [p for group in groups for p in group["params"] if id(p) in self._added]:
            self._optimizer.state.pop(parameter, None)
        groups[:] = [group for group in groups if not any(id(p) in self._added for p in group["params"])]

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def attach(rule: Rule, model: nn.Module, optimizer: Optimizer) -> Attached:
    """Let `rule` act on `model` around every step of `optimizer`, in any training loop.

    Some rules add a group of parameters to the optimizer: create a learning-rate scheduler after this call, and remove
    the rule after the scheduler's last step.
    """
    check_type("rule", rule, Rule)
    check_type("model", model, nn.Module)
    if not hasattr(optimizer, "param_groups"):
        raise MismatchError(f"optimizer: expected one of PyTorch's, found {kind(optimizer)}")
    return Attached(rule, model, optimizer)


def hold(mask: Mask, model: nn.Module, optimizer: Optimizer) -> Attached:
    """Keep what `mask` removes at zero through every step of `optimizer`.

    Works with momentum, weight decay, torch.compile and deepcopy: nothing is attached to the model.

    Raises:
        MismatchError: the mask's names or shapes are not the model's.
    """
    return attach(Hold(mask), model, optimizer)
