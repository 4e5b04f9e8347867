"""Multiply–adds: how often one forward uses each weight.

A convolution uses every weight once for each position of its output (of its input, if transposed), a linear layer once
for each vector that it is applied to; an embedding only looks up rows. So Σ macs[name] · numel is the model's
multiply–adds. Products of two activations (attention) and additions (biases, norms) are not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from laconic.errors import UnsupportedError
from laconic.model.modules import call, eval_mode, first_names, n_examples, unwrap
from laconic.model.selectors import compressible
from laconic.surgery.verify import devices


@torch.no_grad()
def count_macs(model: nn.Module, inputs: Any) -> dict[str, float]:
    """Multiply–adds of one example in one forward, for each *element* of each tensor that compresses.

    Runs the model once, in evaluation mode; mode and random state are restored. A tied tensor adds up its uses; a layer
    that does not run has 0.

    Args:
        model: any module.
        inputs: example arguments of its forward: a tensor, a tuple, or a dictionary by name; the first tensor's first
            dimension counts examples.

    Returns:
        Name → multiply–adds of an element, for the names of `laconic.model.compressible`.

    Raises:
        UnsupportedError: there is no tensor among the inputs.
    """
    inner = unwrap(model)
    names, uses = first_names(inner), Counter[str]()
    if not (n := n_examples(inputs)):
        raise UnsupportedError(
            "macs: expected a tensor among the inputs, whose first dimension counts examples, found none"
        )

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        match module:
            case nn.Linear():
                uses[names[id(module.weight)]] += math.prod(output.shape[:-1])
            case nn.modules.conv._ConvNd():
                n_space = len(module.kernel_size)
                counted = next(iter((*args, *kwargs.values()))) if module.transposed else output
                examples = counted.shape[0] if counted.ndim == n_space + 2 else 1
                uses[names[id(module.weight)]] += examples * math.prod(counted.shape[-n_space:])
            case nn.MultiheadAttention():  # its output projection is a layer that never runs itself
                uses[names[id(module.out_proj.weight)]] += math.prod(output[0].shape[:-1])

    with ExitStack() as stack:
        for module in inner.modules():
            stack.enter_context(module.register_forward_hook(note, with_kwargs=True))
        stack.enter_context(eval_mode(inner))
        stack.enter_context(torch.random.fork_rng(devices=devices(inner)))
        call(inner, inputs)
    return {name: uses[name] / n for name in compressible(inner)}
