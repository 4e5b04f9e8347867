"""Tasks: what targets are, and by how many nats a model's outputs miss them.

- `Classes`: targets are class indices (n, …), outputs (n, classes, …) or (n, …, classes); −ln softmax(outputs)[target].
- `SoftClasses`: targets are probabilities in the outputs' shape, rows of sum 1; −Σ target · ln softmax(outputs).
- `Binary`: targets are 0 and 1 in the outputs' shape; −ln sigmoid(±output).
- `Regression`: targets are other numbers in the outputs' shape; (output − target)², which is in nats but for scale and
  constant.

`infer` chooses by types, shapes and, for floats, values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from laconic.core.text import kind
from laconic.errors import MismatchError
from laconic.model.outputs import logits

IGNORED = -100  # PyTorch's and Hugging Face's index of labels that do not count


@dataclass(frozen=True)
class Judged:
    """What a task says of a batch: an entry for each example, or one in all where its loss does not divide.

    Attributes:
        nats: losses, summed over labels.
        n_labels: numbers of labels.
        n_right: numbers of right answers; None where the task is no classification.
    """

    nats: Float[Tensor, " entries"]
    n_labels: Int[Tensor, " entries"]
    n_right: Int[Tensor, " entries"] | None = None


Mean: TypeAlias = tuple[Tensor, int | Tensor]


class Task(ABC):
    """What targets are."""

    @abstractmethod
    def mean(self, outputs: Any, targets: Any) -> Mean:
        """Mean loss of a label, in nats: a scalar to train with; and the number of labels."""

    @abstractmethod
    def right(self, outputs: Any, targets: Any) -> Int[Tensor, " entries"] | None:
        """Numbers of right answers; None where the task is no classification."""

    @abstractmethod
    def judge(self, outputs: Any, targets: Any) -> Judged:
        """Losses and right answers of each example.

        Raises:
            MismatchError: the targets do not fit the outputs.
        """


def _per_example(of_labels: Tensor) -> Tensor:
    return of_labels.reshape(len(of_labels), -1).sum(1)


def _all_count(losses: Tensor, n_right: Tensor | None) -> Judged:
    """What is said of a batch of which every label counts, from its losses, (n, …)."""
    return Judged(_per_example(losses), _per_example(torch.ones_like(losses, dtype=torch.int64)), n_right)


@dataclass(frozen=True)
class Classes(Task):
    """Each label is the index of a class.

    Attributes:
        ignore_index: the index of labels that do not count.
        last: whether classes are the outputs' last axis, as in Hugging Face's models, rather than axis 1.
        shifted: whether outputs are for the next position's label, as in causal language models.
    """

    ignore_index: int = IGNORED
    last: bool = False
    shifted: bool = False

    @override
    def mean(self, outputs: Tensor, targets: Tensor) -> Mean:
        outputs, targets = self.aligned(outputs, targets)
        n_labels = (targets != self.ignore_index).sum()
        try:
            total = F.cross_entropy(outputs, targets, ignore_index=self.ignore_index, reduction="sum")
        except IndexError:  # on a CPU; looking beforehand would wait for a GPU
            self._check(targets, outputs.shape[1])
            raise
        return total / n_labels.clamp(min=1), n_labels

    @override
    def right(self, outputs: Tensor, targets: Tensor) -> Int[Tensor, " entries"]:
        outputs, targets = self.aligned(outputs, targets)
        return _per_example((outputs.argmax(1) == targets) & (targets != self.ignore_index))

    @override
    def judge(self, outputs: Tensor, targets: Tensor) -> Judged:
        n_right = self.right(outputs, targets)
        outputs, targets = self.aligned(outputs, targets)
        counted = targets != self.ignore_index
        self._check(targets, outputs.shape[1])
        losses = F.cross_entropy(outputs, targets, ignore_index=self.ignore_index, reduction="none")
        return Judged(_per_example(losses), _per_example(counted), n_right)

    def _check(self, targets: Tensor, n_classes: int) -> None:
        outside = (targets != self.ignore_index) & ((targets < 0) | (targets >= n_classes))
        if targets.numel() and bool(outside.any()):
            expected = f"expected classes below {n_classes}, or {self.ignore_index} for labels that do not count"
            found = int(targets[outside][0])
            raise MismatchError(f"targets: {expected}, found {found}; see Objective(ignore_index=)")

    def aligned(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (n, classes, …), and targets (n, …) in int64."""
        outputs = outputs.movedim(-1, 1) if self.last else outputs
        targets = targets.long()
        if targets.ndim == outputs.ndim and targets.shape[1] == 1:
            targets = targets.squeeze(1)
        if self.shifted:
            return outputs[:, :, :-1], targets[:, 1:]
        return outputs, targets


@dataclass(frozen=True)
class SoftClasses(Task):
    """Each label is a distribution over the classes of axis 1; an answer is right where the modes agree."""

    @override
    def mean(self, outputs: Tensor, targets: Tensor) -> Mean:
        return F.cross_entropy(outputs, targets.to(outputs.dtype)), outputs.numel() // outputs.shape[1]

    @override
    def right(self, outputs: Tensor, targets: Tensor) -> Int[Tensor, " entries"]:
        return _per_example(outputs.argmax(1) == targets.argmax(1))

    @override
    def judge(self, outputs: Tensor, targets: Tensor) -> Judged:
        losses = F.cross_entropy(outputs, targets.to(outputs.dtype), reduction="none")
        return _all_count(losses, self.right(outputs, targets))


@dataclass(frozen=True)
class Binary(Task):
    """Each label is 0 or 1, and each output the logit of 1: several labels an example, or one."""

    @override
    def mean(self, outputs: Tensor, targets: Tensor) -> Mean:
        targets = targets.reshape(outputs.shape).to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, targets), targets.numel()

    @override
    def right(self, outputs: Tensor, targets: Tensor) -> Int[Tensor, " entries"]:
        return _per_example((outputs > 0) == (targets.reshape(outputs.shape) > 0))

    @override
    def judge(self, outputs: Tensor, targets: Tensor) -> Judged:
        expected = targets.reshape(outputs.shape).to(outputs.dtype)
        losses = F.binary_cross_entropy_with_logits(outputs, expected, reduction="none")
        return _all_count(losses, self.right(outputs, targets))


@dataclass(frozen=True)
class Regression(Task):
    """Each label is a number; there are no right answers."""

    @override
    def mean(self, outputs: Tensor, targets: Tensor) -> Mean:
        return F.mse_loss(outputs, targets.reshape(outputs.shape).to(outputs.dtype)), targets.numel()

    @override
    def right(self, outputs: Tensor, targets: Tensor) -> None:
        return None

    @override
    def judge(self, outputs: Tensor, targets: Tensor) -> Judged:
        losses = (outputs - targets.reshape(outputs.shape)).square()
        return _all_count(losses, None)


@dataclass(frozen=True)
class Custom(Task):
    """A loss that someone else wrote.

    Attributes:
        loss: from outputs and targets, as the model and the batch give them, or else from the logits in the outputs, to
            the mean over the batch's examples (scalar), or to a loss for each example or label, (n, …).
    """

    loss: Callable[[Any, Any], Tensor]

    @override
    def mean(self, outputs: Any, targets: Any) -> Mean:
        losses = self._losses(outputs, targets)
        return losses.mean(), losses.numel() if losses.ndim else _n_examples(outputs, targets)

    @override
    def right(self, outputs: Any, targets: Any) -> Int[Tensor, " entries"] | None:
        """Those of class indices, one for each example."""
        try:
            outputs = logits(outputs)
        except MismatchError:
            return None
        if not isinstance(targets, Tensor) or targets.is_floating_point():
            return None
        return Classes().right(outputs, targets) if outputs.ndim == 2 and targets.ndim == 1 else None

    @override
    def judge(self, outputs: Any, targets: Any) -> Judged:
        losses, n_right = self._losses(outputs, targets).double(), self.right(outputs, targets)
        if losses.ndim:
            return _all_count(losses, n_right)
        n = torch.tensor([_n_examples(outputs, targets)], device=losses.device)
        return Judged(losses[None] * n, n, None if n_right is None else n_right.sum().reshape(1))

    def _losses(self, outputs: Any, targets: Any) -> Tensor:
        if getattr(self.loss, "reduction", None) == "sum":
            raise MismatchError("loss: expected a mean over examples, or a value for each, found reduction='sum'")
        try:
            losses = self.loss(outputs, targets)
        except (TypeError, AttributeError):  # it reads a tensor, not what holds one
            if isinstance(outputs, Tensor):
                raise
            losses = self.loss(logits(outputs), targets)
        if not isinstance(losses, Tensor) or not losses.is_floating_point():
            name = getattr(self.loss, "__name__", type(self.loss).__name__)
            raise MismatchError(f"loss: expected a tensor of floats from {name}, found {type(losses).__name__}")
        return losses


@dataclass(frozen=True)
class OwnLoss(Task):
    """The model's own loss, of labels whose number is all that is known of them."""

    @override
    def mean(self, outputs: Any, targets: Any) -> Mean:
        return outputs, targets

    @override
    def right(self, outputs: Any, targets: Any) -> None:
        return None

    @override
    def judge(self, outputs: Any, targets: Any) -> Judged:
        n = torch.tensor([targets], device=outputs.device)
        return Judged(outputs.detach().reshape(1).double() * n, n)


def infer(outputs: Tensor, targets: Any, ignore_index: int = IGNORED, last: bool = False) -> Task:
    """The task of a batch, by the types, the shapes and the values of its targets.

    Args:
        outputs: (n, …) floats.
        targets: a tensor; see the module's list.
        ignore_index: of class indices that do not count.
        last: look for classes on the last axis first; both axes may fit.

    Raises:
        MismatchError: no task has such targets.
    """
    if not isinstance(targets, Tensor):
        raise MismatchError(f"targets: expected a tensor, found {kind(targets)}; pass objective=Objective(loss=…)")
    if not targets.ndim or not outputs.ndim:
        found = "outputs" if targets.ndim else "targets"
        raise MismatchError(f"{found}: expected a first axis of examples, found a single number")
    a_column = outputs[:1].numel() == targets[:1].numel()
    if targets.is_floating_point() or targets.shape == outputs.shape or a_column:
        if targets.numel() == outputs.numel() and len(targets) == len(outputs):
            if _are_distributions(targets):
                return SoftClasses()
            return Binary() if bool(((targets == 0) | (targets == 1)).all()) else Regression()
    elif targets.ndim == outputs.ndim and targets.shape[1:] == (1,):
        return Classes(ignore_index)
    else:
        places = {True: outputs.shape[:-1], False: outputs.shape[:1] + outputs.shape[2:]}
        for at in (last, not last):
            if targets.shape == places[at]:
                return Classes(ignore_index, last=at and outputs.ndim > 2)
    shapes = f"{tuple(outputs.shape)} and {str(targets.dtype).removeprefix('torch.')} targets {tuple(targets.shape)}"
    raise MismatchError(f"targets: expected classes of the outputs, or values in their shape, found outputs {shapes}")


def _are_distributions(targets: Tensor) -> bool:
    if targets.ndim < 2 or targets.shape[1] < 2 or bool((targets < 0).any()):
        return False
    sums = targets.sum(1).double()
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def _n_examples(outputs: Any, targets: Any) -> int:
    """Examples that a mean is of, by the first of the two that tells."""
    return next(
        (len(found) for found in (targets, outputs) if isinstance(found, Tensor) and found.ndim and len(found)), 1
    )
