"""Multiply–adds: how often one forward uses each weight.

A convolution uses every weight once for each position of its output (of its input, if transposed), a linear layer once
for each vector that it is applied to; an embedding only looks up rows. So Σ macs[name] · numel is the model's
multiply–adds. Products of two activations (attention) and additions (biases, norms) are not counted.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from laconic.errors import UnsupportedError
from laconic.model.modules import call, eval_mode, n_examples, unwrap
from laconic.model.selectors import compressible
from laconic.model.uses import Use, Watch, eagerly
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
    inner, uses = unwrap(model), defaultdict[str, float](float)
    if not (n := n_examples(inputs)):
        expected = "expected a tensor among the inputs, whose first dimension counts examples, found none"
        raise UnsupportedError(f"macs: {expected}")

    def note(use: Use) -> None:
        uses[use.name] += use.n_positions * (use.rows[1] - use.rows[0]) / use.n_rows

    with eval_mode(inner), torch.random.fork_rng(devices=devices(inner)), eagerly(), Watch(inner, note):
        call(inner, inputs)
    return {name: uses[name] / n for name in compressible(inner)}
