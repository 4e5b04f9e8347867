"""What a model returns: a tensor, or a container with its loss and its logits, by name or by place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from laconic.core.text import kind, listed
from laconic.errors import MismatchError

LOGITS = ("logits", "out", "prediction_logits")


def logits(outputs: Any) -> Tensor:
    """The tensor that is judged: one of a known name, the only one, or the first in a tuple or list.

    Raises:
        MismatchError: there is none, or there are several and none has a name that tells.
    """
    if isinstance(outputs, Tensor):
        return outputs
    named = by_name(outputs)
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor) and value.ndim}
    for key in LOGITS:
        if key in tensors:
            return tensors[key]
    if isinstance(outputs, (tuple, list)):
        first = next((part for part in outputs if part is not None), None)
        if first is not None:
            return logits(first)
    elif len(tensors) == 1:
        return next(iter(tensors.values()))
    found = f"{form(outputs)} of {listed(named)}" if named else form(outputs)
    raise MismatchError(f"outputs: expected a tensor, or one named {LOGITS[0]}, found {found}; see Objective(run=)")


def own_loss(outputs: Any) -> tuple[Tensor | None, Any]:
    """The loss that a model which got labels gave, and its other outputs."""
    if isinstance(outputs, Tensor):
        return (None, outputs) if outputs.ndim else (outputs, ())
    if isinstance(loss := by_name(outputs).get("loss"), Tensor) and loss.numel() == 1:
        return loss.reshape(()), outputs
    if isinstance(outputs, (tuple, list)) and outputs and isinstance(outputs[0], Tensor) and not outputs[0].ndim:
        return outputs[0], outputs[1:]
    return None, outputs


def by_name(outputs: Any) -> Mapping[str, Any]:
    """The named parts of a mapping, a named tuple, a dataclass or another object."""
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, tuple):
        return outputs._asdict() if hasattr(outputs, "_asdict") else {}  # pyright: ignore[reportAttributeAccessIssue]
    if is_dataclass(outputs):
        return {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    return getattr(outputs, "__dict__", {})


def form(found: Any) -> str:
    """What a value is, to end an error with: ``a tuple of 2``."""
    if found is None:
        return "None"
    if isinstance(found, (tuple, list)):
        return f"{kind(found)} of {len(found)}"
    return kind(found)
