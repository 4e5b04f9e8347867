"""Objectives: what a batch is, how a model is run on it, and how its answer is judged.

A batch is a pair (inputs, targets); or several inputs and then the targets; or a mapping of keywords, as Hugging Face's
collators make it, with the labels inside, or in a pair with them. Inputs in a mapping are passed as keywords, in a
tuple or list as arguments. Outputs are a tensor, or hold one as ``logits``; a model that gets labels may give its own
``loss``. All consumers of batches go through here: nothing else knows about these forms.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from laconic.core.text import listed
from laconic.errors import MismatchError
from laconic.model.modules import call, device_of, moved, n_examples, unwrap
from laconic.model.outputs import form, logits, own_loss
from laconic.model.tasks import IGNORED, Classes, Custom, Judged, Mean, OwnLoss, Task, infer

Loss: TypeAlias = Callable[[Any, Any], Tensor]
Batches: TypeAlias = Iterable[Any]
LABELS = ("labels", "label", "label_ids", "targets", "target")
SAME = 1e-3  # largest relative difference of a model's own loss from that of a known task


@dataclass(frozen=True)
class Answer:
    """A model's answer to a batch.

    Attributes:
        task: what the targets are.
        outputs: the tensor that is judged, or what the model gave where a loss of the user's reads it.
        targets: what they are compared with.
        own: the loss that the model itself gave, the mean over labels.
        n: number of examples.
    """

    task: Task
    outputs: Any
    targets: Any
    own: Tensor | None
    n: int

    @property
    def loss(self) -> Tensor:
        """Mean loss of a label, in nats: a scalar to train with."""
        return self._mean[0] if self.own is None else self.own

    @property
    def differentiable_loss(self) -> Tensor:
        """The same; MismatchError if it does not depend on parameters."""
        if not self.loss.requires_grad:
            raise MismatchError(
                "loss: expected one that depends on the model's parameters, found one without a gradient"
            )
        return self.loss

    @property
    def n_labels(self) -> int | Tensor:
        """Number of labels that the loss is the mean of."""
        return self._mean[1]

    @property
    def n_right(self) -> Tensor | None:
        """Numbers of right answers; None where the task is no classification."""
        return self.task.right(self.outputs, self.targets)

    @cached_property
    def _mean(self) -> Mean:
        return self.task.mean(self.outputs, self.targets)

    @cached_property
    def judged(self) -> Judged:
        """Losses and right answers of each example, in float64, without gradients."""
        with torch.no_grad():
            wide = isinstance(self.outputs, Tensor) and self.outputs.is_floating_point()
            return self.task.judge(self.outputs.double() if wide else self.outputs, self.targets)


@dataclass(frozen=True)
class Objective:
    """What a batch, a loss and a score are.

    The score is the fraction of labels that the model gets right; where the task is no classification, minus the mean
    loss of a label.

    Attributes:
        loss: a `Task`; or a function from outputs and targets to the mean loss of the batch's examples, in nats, or to
            the loss of each; or None for the model's own loss, or else the task that the first batch shows. A function
            gets what the model returns; if it cannot read a container, it gets the logits in it.
        ignore_index: class index of labels that do not count.
        run: from a model and inputs to outputs; by default a call.
    """

    loss: Task | Loss | None = None
    ignore_index: int = IGNORED
    run: Callable[[nn.Module, Any], Any] = call

    @contextmanager
    def on(self, model: nn.Module) -> Generator[Callable[[Any], Answer]]:
        """A function from batches to the answers of `model`, while the block lasts; it moves batches to its device.

        The first batch decides what the targets are, if the objective does not.
        """
        device, settled = device_of(model), self

        def answer(batch: Any) -> Answer:
            nonlocal settled
            answered = settled.answer(model, moved(batch, device))
            settled = settled.settled(answered)
            return answered

        yield answer

    def forward(self, model: nn.Module, batch: Any) -> int:
        """Run a model on a batch whose targets, if there are any, do not matter; the number of its examples."""
        inputs, _ = split(batch, model, must=False)
        n = _some(inputs)
        self.run(model, moved(inputs, device_of(model)))
        return n

    def settled(self, answer: Answer) -> Objective:
        """This objective with the task of an answer, for further batches."""
        return self if isinstance(answer.task, OwnLoss) else replace(self, loss=answer.task)

    def answer(self, model: nn.Module, batch: Any) -> Answer:
        """Run a model on a batch.

        Raises:
            MismatchError: the batch has no targets, or targets and outputs are of no known task.
        """
        inputs, targets = split(batch, model)
        n = _some(inputs)
        try:
            outputs = self.run(model, inputs)
        except TypeError as error:
            if isinstance(inputs, Mapping) and "argument" in str(error):
                found = f"found {listed(inputs)}: {error}"
                raise MismatchError(f"batch: expected keywords of the model's forward, {found}") from error
            raise
        own, outputs = own_loss(outputs) if isinstance(inputs, Mapping) else (None, outputs)
        given = Custom(self.loss) if callable(self.loss) else self.loss
        if isinstance(given, Custom):
            return Answer(given, outputs, targets, None, n)
        if own is not None and given is None:
            return self._as_the_model(model, own, outputs, targets, n)
        if targets is None:
            found = f"a mapping with {listed(inputs)}" if isinstance(inputs, Mapping) else form(batch)
            raise MismatchError(f"batch: expected labels in it, under {LABELS[0]!r}, or beside it, found {found}")
        judged = logits(outputs)
        task = given or infer(judged, targets, self.ignore_index, last=not isinstance(outputs, Tensor))
        return Answer(task, judged, targets, own, n)

    def _as_the_model(self, model: nn.Module, own: Tensor, outputs: Any, targets: Any, n: int) -> Answer:
        """Find the task whose mean loss is what the model says; if there is none, the batch is one entry."""
        n_labels = n
        if isinstance(targets, Tensor):
            n_labels = n if targets.is_floating_point() else max(int((targets != self.ignore_index).sum()), 1)
            for task in self._candidates(model, outputs, targets):
                mean, _ = task.mean(logits(outputs).detach().float(), targets)
                if torch.isclose(mean, own.detach().float(), rtol=SAME, atol=1e-6):
                    return Answer(task, logits(outputs), targets, own, n)
        return Answer(OwnLoss(), own, n_labels, own, n)

    def _candidates(self, model: nn.Module, outputs: Any, targets: Tensor) -> Iterator[Task]:
        try:
            task = infer(logits(outputs), targets, self.ignore_index, last=True)
        except MismatchError:
            return
        causal = isinstance(task, Classes) and task.last and targets.shape[1] > 1
        shifted = [replace(task, shifted=True)] if causal and isinstance(task, Classes) else []
        is_causal = any(word in type(unwrap(model)).__name__ for word in ("Causal", "LMHead", "DoubleHeads"))
        yield from [*shifted, task] if is_causal else [task, *shifted]


DEFAULT_OBJECTIVE = Objective()


def split(batch: Any, model: nn.Module, must: bool = True) -> tuple[Any, Any]:
    """The inputs and the targets of a batch; None for targets of a mapping without labels.

    Raises:
        MismatchError: it is no batch, or has no targets but `must` have some.
    """
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else [batch]
    if any(isinstance(part, np.ndarray) for part in parts):
        raise MismatchError("batch: expected tensors, found NumPy arrays; torch.from_numpy makes tensors of them")
    alone = isinstance(batch, Tensor) or (isinstance(batch, (tuple, list)) and len(batch) == 1)
    if alone and not must:
        return batch, None
    if isinstance(batch, Mapping):
        label = next((key for key in LABELS if key in batch), None)
        if label is None:
            return batch, None
        inputs = batch if _takes(model, label) else {key: v for key, v in batch.items() if key != label}
        return inputs, batch[label]
    if not isinstance(batch, (tuple, list)) or len(batch) < 2 or any(_is_loader(part) for part in batch):
        hint = "; an autoencoder's batches are (x, x)" if alone and isinstance(next(iter(parts)), Tensor) else ""
        raise MismatchError(f"batch: expected (inputs, targets) or a mapping with labels, found {form(batch)}{hint}")
    inputs, targets = batch[0] if len(batch) == 2 else tuple(batch[:-1]), batch[-1]
    if isinstance(inputs, Mapping) and LABELS[0] not in inputs and _takes(model, LABELS[0]):
        return {**inputs, LABELS[0]: targets}, targets
    return inputs, targets


def _some(inputs: Any) -> int:
    """How many examples the inputs are, 1 if there is no telling."""
    n = n_examples(inputs)
    if n == 0:
        raise MismatchError("batch: expected examples, found none in it; leave empty batches out")
    return n or 1


def n_batches(batches: Any) -> int | None:
    """Number of batches; None if there is no telling, as for a loader of an iterable data set."""
    try:
        return len(batches)
    except TypeError:
        return None


def _takes(model: nn.Module, keyword: str) -> bool:
    return keyword in inspect.signature(unwrap(model).forward).parameters


def check_batches(batches: Any, name: str = "batches", once: bool = False) -> None:
    """Refuse what are no batches, such as a pair (train, test), by what it is.

    Raises:
        MismatchError: `batches` are no batches; or they run only once, as a generator does, unless `once` is enough.
    """
    if isinstance(batches, Iterator) and not once:
        raise MismatchError(f"{name}: expected a list or a loader, found {form(batches)}, which runs only once")
    if isinstance(batches, (Mapping, Tensor, nn.Module, str)) or not isinstance(batches, Iterable):
        raise MismatchError(f"{name}: expected an iterable of batches, found {form(batches)}")
    if is_pair(batches):
        raise MismatchError(f"{name}: expected batches, found a pair of them, as of training and test")
    if n_batches(batches) == 0 and not once:
        raise MismatchError(f"{name}: expected some, found none")


def is_pair(data: Any) -> bool:
    """Whether data are two sets of batches, as of training and test, rather than two batches."""
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(_is_loader(part) for part in data)


def as_number(found: Any, function: Any) -> float:
    """A score as a float, from a number of Python or NumPy or a tensor of one element."""
    name = getattr(function, "__name__", type(function).__name__)
    if hasattr(found, "item") and getattr(found, "size", 1) != 0:
        with suppress(ValueError, RuntimeError):  # several elements, or none that is known: refused below
            found = found.detach().item() if isinstance(found, Tensor) else found.item()
    if isinstance(found, bool) or not isinstance(found, (Real, Decimal)):
        raise MismatchError(f"evaluate: expected a number from {name}, found {form(found)}")
    try:
        return float(found)
    except OverflowError as error:
        raise MismatchError(f"evaluate: expected a number from {name}, found one beyond float64") from error


def _is_loader(part: Any) -> bool:
    """Whether a part of what should be a batch is itself batches."""
    if isinstance(part, (Tensor, Mapping, str)):
        return False
    if isinstance(part, (tuple, list)):
        kinds = {tuple if isinstance(inner, (tuple, list)) else type(inner) for inner in part}
        return isinstance(part, list) and kinds in ({tuple}, {dict})
    return isinstance(part, torch.utils.data.DataLoader) or hasattr(part, "batches")
