"""The two public ways to cut a model by a plan: a smaller copy, or in place with the optimizer's state."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from laconic.errors import UnsupportedError
from laconic.model.modules import copied, unwrap
from laconic.surgery.cut import check, cut_, refuse_distributed
from laconic.surgery.plan import Plan
from laconic.surgery.verify import disagreement, scratch


def shrink(model: nn.Module, plan: Plan, inputs: Any = None) -> nn.Module:
    """A smaller copy of `model`, cut by `plan`: same interface, same names, types, devices and ties.

    Args:
        model: the dense model, or one of its shapes. Wrappers of `torch.compile` and data parallelism are removed.
        plan: what stays.
        inputs: example arguments, to check that the smaller model computes what the masked one does.

    Raises:
        MismatchError: names, shapes or attributes of the plan are not the model's.
        UnsupportedError: on `inputs`, the smaller model and the masked one differ.
    """
    smaller = copied(unwrap(model))
    shrink_(smaller, plan, inputs=inputs)
    return smaller


def shrink_(model: nn.Module, plan: Plan, optimizer: Optimizer | None = None, inputs: Any = None) -> None:
    """Cut `model` in place, and the state of its optimizer, so that training can continue; arguments as for `shrink`.

    Parameters become new objects: an optimizer that is not passed keeps the old ones. Tensors of the optimizer's state
    that are shaped like their parameter are cut like it. After an error, model and optimizer are untouched.

    Raises:
        MismatchError: names, shapes or attributes of the plan are not the model's.
        UnsupportedError: the two differ on `inputs`, the optimizer's state cannot be cut, or the model is wrapped in
            DistributedDataParallel, which must wrap the smaller model again.
    """
    refuse_distributed(model)
    inner = unwrap(model)
    if inputs is not None:
        check(inner, plan)
        if reason := disagreement(*scratch(inner, inputs), plan):
            raise UnsupportedError(f"the plan does not fit the model: {reason}")
    cut_(inner, plan, optimizer).pop_all()
