"""Batch norms folded into the layers before them, so that nobody pays for their numbers.

With statistics fixed, a norm after a layer Wx + b is one more affine map of each channel: the layer with
weights γW/σ and bias β + γ(b − μ)/σ computes both (Jacob et al. 2018, section 3.2). Four numbers a channel
become one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from laconic.model.modules import call, device_of, eval_mode, map_tensors, unwrap
from laconic.surgery.verify import difference, outputs, scratch


def fuse_batch_norms(model: nn.Module, inputs: Any) -> nn.Module:
    """A copy of `model` in which batch norms are part of the linear or convolutional layers they follow.

    In evaluation mode it computes the same; in training it goes on with the statistics it has. Where a norm
    was there is an `nn.Identity`, and its layer has a bias: a file of the copy is read into such a copy.
    Norms stay that follow something else, or a layer whose output something else reads too, or that are
    called more than once.

    Args:
        model: wrappers of `torch.compile` and data parallelism are left away.
        inputs: example arguments, by which norms are found and the copy is checked.

    Raises:
        UnsupportedError: the model cannot be copied, or its outputs are no floats.
    """
    trial, wide = scratch(unwrap(model), inputs)
    expected = outputs(trial, wide)

    def changes(pairs: Mapping[str, str]) -> bool:
        return bool(difference(expected, outputs(_fold(trial, pairs), wide), "the model's"))

    pairs = _pairs(trial, wide)
    if changes(pairs):
        pairs = {norm: layer for norm, layer in pairs.items() if not changes({norm: layer})}
    return _fold(unwrap(model), pairs)


def _pairs(model: nn.Module, inputs: Any) -> dict[str, str]:
    """Norm → the layer whose output it takes, each called once."""
    calls: list[str] = []
    made: dict[int, tuple[str, Tensor]] = {}  # the tensor is held, so that its identity stays its own
    pairs: dict[str, str] = {}

    def note(name: str, module: nn.Module, args: Any, result: Any) -> None:
        calls.append(name)
        if isinstance(module, _BatchNorm):
            layer, output = made.get(id(args[0]), ("", None)) if args else ("", None)
            if output is not None and module.running_mean is not None and _per_channel(model, layer, output):
                pairs[name] = layer
        elif isinstance(result, Tensor):
            made[id(result)] = name, result

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm | _ConvNd | nn.Linear):

                def hook(module: nn.Module, args: Any, result: Any, name: str = name) -> None:
                    note(name, module, args, result)

                hooks.callback(module.register_forward_hook(hook).remove)
        outputs(model, inputs)
    return {norm: layer for norm, layer in pairs.items() if calls.count(norm) == calls.count(layer) == 1}


def _per_channel(model: nn.Module, layer: str, output: Tensor) -> bool:
    """Whether a norm's channels, the second dimension, are what the layer has a row of weights for each."""
    return output.ndim == 2 or not isinstance(model.get_submodule(layer), nn.Linear)


@torch.no_grad()
def _fold(model: nn.Module, pairs: Mapping[str, str]) -> nn.Module:
    found = copy.deepcopy(model)
    for norm, layer in pairs.items():
        before, after = found.get_submodule(layer), found.get_submodule(norm)
        training = before.training
        before, after = before.eval(), after.eval()  # which the fusion insists on
        assert isinstance(after, _BatchNorm)
        if isinstance(before, nn.Linear):
            fused = fuse_linear_bn_eval(before, after)
        else:
            assert isinstance(before, _ConvNd)
            fused = fuse_conv_bn_eval(before, after, isinstance(before, _ConvTransposeNd))
        assert fused.bias is not None
        fused.bias.requires_grad_(_is_trained(before.bias) or _is_trained(after.bias))
        found.set_submodule(layer, fused.train(training))
        found.set_submodule(norm, nn.Identity().train(training))
    return found


def _is_trained(parameter: Tensor | None) -> bool:
    return parameter is not None and parameter.requires_grad


@torch.no_grad()
def reestimate_batch_norm_(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> None:
    """Replace the running statistics of `model`'s batch norms by averages over `batches`, in place.

    All other layers run in evaluation mode. A model without batch norms is left as it is.

    Args:
        model: the model, on its own device; inputs are moved there.
        batches: pairs (inputs, targets), read once; targets are ignored.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = {norm: norm.momentum for norm in norms}
    device = device_of(model)
    try:
        with eval_mode(model):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average over batches
                norm.train()
            for inputs, _ in batches if norms else ():
                call(model, map_tensors(lambda tensor: tensor.to(device), inputs))
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
