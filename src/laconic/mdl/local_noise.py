"""Noise for each example: the outputs of layers with Gaussian weights, drawn without drawing the weights.

With independent weights N(μ, σ²), a layer that is linear in them puts out Gaussians of mean layer(x; μ) and variance
layer(x²; σ²). Sampling those gives each example its own noise, for a second pass through the layer, and gradients of
far smaller variance (the local reparameterisation of Kingma, Salimans & Welling 2015). At several positions
(convolutions), noise is drawn as if they shared no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from laconic.core.distributed import rank
from laconic.core.randomness import generator
from laconic.errors import UnsupportedError
from laconic.training.rules import Attached

MIN_VARIANCE = 1e-20  # where inputs are 0 the root's slope would be infinite
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Hook: TypeAlias = Callable[[nn.Module, Any, Tensor], Tensor | None]


class _Draws:
    """Noise for the next step. Each rank draws its own, since each sees different examples."""

    def __init__(self, attached: Attached, seed: int) -> None:
        self._attached, self._seed = attached, seed
        self._at: tuple[int, torch.device] | None = None

    def like(self, outputs: Tensor) -> Tensor:
        at = (self._attached.step, outputs.device)
        if self._at != at:
            self._at, self._generator = at, generator(self._seed + rank(), *at)
        noise = torch.randn(outputs.shape, generator=self._generator, device=outputs.device)
        return noise.to(outputs)


def listen(model: nn.Module, names: Mapping[int, str], attached: Attached, seed: int) -> Sequence[RemovableHandle]:
    """Hooks on every layer of `model` that has random weights; they draw its outputs until removed.

    Args:
        model: the network, whose parameters hold μ.
        names: identity of each random parameter → its name, under which the rule's trained values hold log σ².
        attached: the rule at work, whose step decides the noise.
        seed: seed of the noise.

    Raises:
        UnsupportedError: a random parameter belongs to no linear or convolutional layer.
    """
    draws, handles = _Draws(attached, seed), []
    for layer in model.modules():
        own = {part: names[id(p)] for part, p in layer.named_parameters(recurse=False) if id(p) in names}
        if not own:
            continue
        if not isinstance(layer, nn.Linear | Convolution):
            for handle in handles:
                handle.remove()
            name, found = next(iter(own.values())), type(layer).__name__
            raise UnsupportedError(f"{name}: local noise needs a linear or convolutional layer, found {found}")
        handles.append(layer.register_forward_hook(_noise(layer, own, attached, draws)))
    return handles


def _noise(layer: nn.Module, own: Mapping[str, str], attached: Attached, draws: _Draws) -> Hook:
    def hook(called: nn.Module, args: tuple[Tensor, ...], outputs: Tensor) -> Tensor | None:
        if attached.is_deterministic or called is not layer:  # a copy of the model is a plain network
            return None
        trained = attached.state["trained"]
        variances = {part: torch.exp(trained[name]) for part, name in own.items()}
        variance = _squared(called, args[0] ** 2, variances.get("weight"), variances.get("bias"))
        return outputs + variance.clamp_min(MIN_VARIANCE).sqrt() * draws.like(outputs)

    asked: Any = torch.compiler.disable(hook)  # also in a compiled model, at every call
    return asked


def _squared(layer: nn.Module, squares: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The layer's outputs for squared inputs, with variances as weights; None for an exact parameter."""
    if weight is None:
        assert isinstance(layer.weight, Tensor)
        weight = torch.zeros_like(layer.weight)
    if isinstance(layer, nn.Linear):
        return F.linear(squares, weight, bias)
    assert isinstance(layer, Convolution)
    return layer._conv_forward(squares, weight, bias)
