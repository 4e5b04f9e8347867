"""Multiply–adds: how often one forward uses each weight.

A convolution uses every weight once for each position of its output (of its input, if transposed), a linear
layer once for each vector that it is applied to, an embedding looks its rows up. So Σ macs[name] · numel is
the model's multiply–adds; what two activations multiply (attention's products) and what adds (biases, norms)
is not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from laconic.errors import UnsupportedError
from laconic.surgery.coupling import first_names
from laconic.surgery.trial import call, devices
from laconic.tensors import tensors, unwrap


@torch.no_grad()
def macs(model: nn.Module, inputs: Any) -> dict[str, float]:
    """Multiply–adds of one case in one forward, for each *element* of each tensor that compresses.

    Measured by running the model once, in evaluation mode, which is restored, as is the random state. A tied
    tensor adds up its uses; a layer that does not run has 0.

    Args:
        model: any module.
        inputs: example arguments of its forward: a tensor, a tuple, or a dictionary by name; the first
            tensor's first dimension counts cases.

    Returns:
        Name → multiply–adds of an element, for the names of `laconic.tensors`.

    Raises:
        UnsupportedError: there is no tensor among the inputs.
    """
    inner = unwrap(model)
    names, uses = first_names(inner), Counter[str]()
    n_cases = _n_cases(inputs)

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for tensor, n in _used(module, (*args, *kwargs.values()), output):
            uses[names[id(tensor)]] += n

    modes = {module: module.training for module in inner.modules()}
    handles = [m.register_forward_hook(note, with_kwargs=True) for m in modes]
    try:
        with torch.random.fork_rng(devices=devices(inner)):
            call(inner.eval(), inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return {name: uses[name] / n_cases for name in tensors(inner)}


def _used(module: nn.Module, given: tuple[Any, ...], output: Any) -> list[tuple[Tensor, int]]:
    """The weights that a module's forward multiplies by, and how often each element."""
    if isinstance(module, nn.Linear):
        return [(module.weight, math.prod(output.shape[:-1]))]
    if isinstance(module, nn.modules.conv._ConvNd):
        n_space = len(module.kernel_size)
        counted = given[0] if module.transposed else output
        cases = counted.shape[0] if counted.ndim == n_space + 2 else 1
        return [(module.weight, cases * math.prod(counted.shape[-n_space:]))]
    if isinstance(module, nn.MultiheadAttention):  # its output projection is a layer that never runs itself
        return [(module.out_proj.weight, math.prod(output[0].shape[:-1]))]
    return []


def _n_cases(inputs: Any) -> int:
    given = inputs.values() if isinstance(inputs, Mapping) else inputs
    for found in [given] if isinstance(given, Tensor) else given:
        if isinstance(found, Tensor) and found.ndim:
            return found.shape[0]
    raise UnsupportedError(
        "macs: expected a tensor among the inputs, whose first dimension counts cases, found none"
    )
