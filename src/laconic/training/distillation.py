"""Distillation: a network learns another's outputs instead of labels (Hinton, Vinyals & Dean 2015).

What a pruned network has to keep is what the dense one does. The dense one's outputs say more of that than
labels do, which need not even be known: with temperature T the loss is T²·KL(softmax(t/T) ‖ softmax(s/T)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Distillation:
    """A loss for `laconic.Training` with the outputs of `teacher` for targets; the batches' are not used.

    Attributes:
        teacher: a network with the student's inputs and outputs (…, classes), in evaluation mode, such as a
            copy of the student before it was pruned.
        temperature: T, above 0. Higher ones weigh what the teacher says of unlikely classes more.

    Raises:
        ValueError: the teacher is in training mode, or the temperature is not above 0.
    """

    teacher: nn.Module
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if self.teacher.training:
            raise ValueError("teacher: expected evaluation mode, found training mode; call its eval()")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected above 0, got {self.temperature}")

    def targets(self, inputs: Tensor) -> Tensor:
        """The teacher's outputs for a batch."""
        with torch.no_grad():
            return self.teacher.to(inputs.device)(inputs)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a student's outputs against the teacher's, both (…, classes); in nats."""
        student, teacher = (
            F.log_softmax(logits.flatten(0, -2) / self.temperature, 1) for logits in (outputs, targets)
        )
        loss = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return self.temperature**2 * loss
