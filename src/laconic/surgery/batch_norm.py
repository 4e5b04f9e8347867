"""Batch norms folded into the layers before them, so that files need not hold their numbers.

With statistics fixed, a norm after a layer Wx + b is one more affine map of each channel: the layer with weights γW/σ
and bias β + γ(b − μ)/σ computes both (Jacob et al. 2018, section 3.2). Four numbers a channel become one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from laconic.model.modules import copied, eval_mode, unwrap
from laconic.model.objective import DEFAULT_OBJECTIVE, Batches, Objective, check_batches
from laconic.surgery.verify import difference, outputs, scratch


def fuse_batch_norms(model: nn.Module, inputs: Any) -> nn.Module:
    """A copy of `model` in which batch norms are part of the linear or convolutional layers they follow.

    In evaluation mode it computes the same; in training it keeps the statistics it has. An `nn.Identity` takes the
    place of a norm, and its layer has a bias: a file of the copy is read into such a copy. A norm stays if it follows
    something else, if its layer's output is read elsewhere too, or if it is called more than once.

    Args:
        model: any module; wrappers of `torch.compile` and data parallelism are removed.
        inputs: example arguments, by which norms are found and the copy is checked.

    Raises:
        UnsupportedError: the model cannot be copied, or its outputs are not floats.
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
    calls: list[nn.Module] = []
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensor is held, so that its identity stays its own
    pairs: dict[nn.Module, nn.Module] = {}

    def note(module: nn.Module, args: Any, result: Any) -> None:
        calls.append(module)
        if isinstance(module, _BatchNorm):
            layer, output = made.get(id(args[0]), (None, None)) if args else (None, None)
            # The norm's channels, the second dimension, must be those that the layer has a row of weights for.
            fits = output is not None and (output.ndim == 2 or not isinstance(layer, nn.Linear))
            if layer and fits and module.running_mean is not None:
                pairs[module] = layer
        elif isinstance(result, Tensor):
            made[id(result)] = module, result

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, _BatchNorm | _ConvNd | nn.Linear):
                hooks.enter_context(module.register_forward_hook(note))
        outputs(model, inputs)
    names = {module: name for name, module in model.named_modules()}
    return {names[norm]: names[layer] for norm, layer in pairs.items() if calls.count(norm) == calls.count(layer) == 1}


@torch.no_grad()
def _fold(model: nn.Module, pairs: Mapping[str, str]) -> nn.Module:
    found = copied(model)
    for norm, layer in pairs.items():
        before, after = found.get_submodule(layer), found.get_submodule(norm)
        training = before.training
        before, after = before.eval(), after.eval()  # which the fusion insists on
        assert isinstance(after, _BatchNorm) and isinstance(before, nn.Linear | _ConvNd)
        if isinstance(before, nn.Linear):
            fused = fuse_linear_bn_eval(before, after)
        elif isinstance(before, _ConvTransposeNd):
            fused = _fuse_transposed(before, after)
        else:
            fused = fuse_conv_bn_eval(before, after)
        assert fused.bias is not None
        fused.bias.requires_grad_(any(bias is not None and bias.requires_grad for bias in (before.bias, after.bias)))
        found.set_submodule(layer, fused.train(training))
        found.set_submodule(norm, nn.Identity().train(training))
    return found


def _fuse_transposed(layer: _ConvTransposeNd, norm: _BatchNorm) -> nn.Module:
    """PyTorch's own fusion takes grouped ones for ungrouped."""
    assert norm.running_mean is not None and norm.running_var is not None
    fused = copied(layer)
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
    of_groups = layer.weight.unflatten(0, (layer.groups, -1))  # (groups, in, out, kernel)
    scales = scale.reshape(layer.groups, 1, -1, *[1] * (layer.weight.ndim - 2))
    fused.weight = nn.Parameter((of_groups * scales).flatten(0, 1), layer.weight.requires_grad)
    fused.bias = nn.Parameter(shift if layer.bias is None else layer.bias * scale + shift)
    return fused


@torch.no_grad()
def reestimate_batch_norm_(model: nn.Module, batches: Batches, objective: Objective = DEFAULT_OBJECTIVE) -> None:
    """Replace the running statistics of `model`'s batch norms by averages over `batches`, in place.

    Batches should be of the kind that the model was trained on, augmentation included: statistics of other images, such
    as those without crops or with borders of another colour, cost even an unchanged model accuracy.

    All other layers run in evaluation mode. Batches are moved to the model's device; targets are ignored, and may be
    missing. A model without batch norms is left as it is.
    """
    check_batches(batches, once=True)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = {norm: norm.momentum for norm in norms}
    try:
        with eval_mode(model):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average over batches
                norm.train()
            for batch in batches if norms else ():
                objective.forward(model, batch)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
