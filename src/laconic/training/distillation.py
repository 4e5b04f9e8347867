"""Distillation: a network learns another's outputs instead of labels (Hinton, Vinyals & Dean 2015).

A pruned network has to keep what the dense one does. The dense one's outputs tell more about that than labels, which
need not even be known: with temperature T the loss is T²·KL(softmax(t/T) ‖ softmax(s/T)). Where inner outputs have kept
their shape, those of the dense network are hints (Romero et al. 2015). A hint teaches its layer directly, not through
the layers after it, which helps most in the first epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laconic.errors import MismatchError, UnsupportedError
from laconic.model.modules import call, device_of, moved, n_examples, notice_hooks, unwrap
from laconic.model.objective import Answer, Loss, logits, split
from laconic.model.selectors import names
from laconic.model.tasks import Custom


@dataclass(frozen=True)
class Distillation:
    """An objective for `laconic.Training`, with the outputs of `teacher` as targets; the batches' may be missing.

    Attributes:
        teacher: a network with the student's inputs and outputs, in evaluation mode, such as a copy of the student
            before it was pruned.
        temperature: T, above 0. Higher values give more weight to the teacher's unlikely classes.
        hints: modules, by name or pattern ``re:…``, that should put out what the teacher's modules of the same names
            do. Each adds its error over a batch, ‖s − t‖² / ‖t‖², to the loss.
        hint_weight: factor of these errors.
        loss: a function of the outputs and the teacher's outputs, where these are not logits (…, classes):
            ``torch.nn.functional.mse_loss`` for embeddings. By default the divergence of classes at the temperature.

    Raises:
        ValueError: the teacher is in training mode, or the temperature is not above 0.
    """

    teacher: nn.Module
    temperature: float = 4.0
    hints: Sequence[str] = ()
    hint_weight: float = 1.0
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if self.teacher.training:
            raise ValueError("teacher: expected evaluation mode, found training mode; call its eval()")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected above 0, got {self.temperature}")

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """`loss` of outputs and the teacher's; T² times their mean divergence in nats by default."""
        if self.loss:
            return self.loss(outputs, targets)
        student, teacher = (F.log_softmax(logits.flatten(0, -2) / self.temperature, 1) for logits in (outputs, targets))
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return self.temperature**2 * divergence

    @contextmanager
    def on(self, student: nn.Module) -> Generator[Callable[[Any], Answer]]:
        """A function from batches to the answers of `student`, as `Objective.on`; right answers are the batches'.

        Raises:
            MismatchError: no module has a hint's name, or its output has another shape than the teacher's.
            UnsupportedError: the output of a module with a hint is not a tensor.
        """
        hinted: list[str] = []
        for hint in self.hints:
            found = [name for name, _ in unwrap(student).named_modules() if names(hint, name)]
            if not found:
                raise MismatchError(f"hints: expected a module of the student that matches {hint!r}, found none")
            hinted += found
        with _outputs(student, hinted) as seen, _outputs(self.teacher, hinted) as shown:

            def answer(batch: Any) -> Answer:
                device = device_of(student)
                inputs, targets = split(moved(batch, device), student, must=False)
                outputs = logits(call(student, inputs))
                with torch.no_grad():
                    taught = logits(call(self.teacher.to(device), inputs))
                error = self(outputs, taught)
                for name in hinted:
                    s, t = seen.pop(name), shown.pop(name)
                    if s.shape != t.shape:
                        shapes = f"the student's output is {tuple(s.shape)}, the teacher's {tuple(t.shape)}"
                        raise MismatchError(f"{name}: {shapes}")
                    error = error + self.hint_weight * F.mse_loss(s, t) / t.square().mean()
                return Answer(Custom(lambda *_: error), outputs, targets, None, n_examples(inputs) or 1)

            yield answer


@contextmanager
def _outputs(model: nn.Module, names: Sequence[str]) -> Generator[dict[str, Tensor]]:
    """The latest outputs of the modules of these names."""
    found: dict[str, Tensor] = {}

    def keep(name: str, outputs: Any) -> None:
        if not isinstance(outputs, Tensor):
            raise UnsupportedError(f"{name}: a hint needs a tensor, found {type(outputs).__name__}")
        found[name] = outputs

    modules = dict(unwrap(model).named_modules())
    with ExitStack() as stack:
        if names:
            stack.callback(notice_hooks)  # last, when they are gone
        for name in names:
            if name not in modules:
                raise MismatchError(f"hints: expected a module {name!r} of the teacher, found none")
            hook = modules[name].register_forward_hook(lambda _, inputs, outputs, name=name: keep(name, outputs))
            stack.enter_context(hook)
        if names:
            notice_hooks()
        yield found
