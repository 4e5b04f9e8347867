"""Evidence: what data say about each weight, gathered in one pass.

A criterion names the statistics it needs; `observe` gathers exactly these, each example once, and leaves the model
unchanged. This is the only place where hooks look into a model's layers.

Sums are over the positions at which a layer is applied (tokens, pixels), means over examples:

- ``GRADIENT``: ∂L/∂w, the mean over examples.
- ``FISHER``: E[(∂L/∂w)²], the diagonal of the empirical Fisher matrix; each example is run by itself.
- ``NORM``: ‖X_j‖₂ = √(Σ x_j²) over all examples, for each input j of a weight (Wanda; Sun et al. 2024).
- ``GRAM``: E[Σ x xᵀ], for the inputs of a layer; a convolution's are its unfolded patches.
- ``SENSITIVITY``: E[δ²], with δ = ∂L/∂y at each output y of a layer, the mean over positions too. With the Gram matrix
  it makes a Kronecker-factored Fisher matrix, diagonal in the outputs (Martens & Grosse 2015).
- ``MOVEMENT``: −Σ w·∂L/∂w over the steps of a training (Sanh et al. 2020); no pass over data gives it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from laconic.errors import MismatchError, UnsupportedError
from laconic.model.modules import call, device_of, eval_mode, map_tensors, n_examples, unwrap

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Statistic(Enum):
    """A statistic of weights; the module's docstring has the formulas."""

    GRADIENT = auto()
    FISHER = auto()
    NORM = auto()
    GRAM = auto()
    SENSITIVITY = auto()
    MOVEMENT = auto()


GRADIENT, FISHER, NORM, GRAM, SENSITIVITY, MOVEMENT = Statistic
OF_INPUTS = {NORM, GRAM}
BITS_PER_NAT = 1 / math.log(2)  # losses are in nats
OF_LAYERS = {*OF_INPUTS, SENSITIVITY}


@dataclass(frozen=True)
class Evidence:
    """Statistics by kind and by weight's name.

    Attributes:
        n: number of examples.
        found: the statistics of weights of shape (out, in, …): gradient, Fisher and movement have that shape; the norm
            broadcasts with it; the Gram matrix is (groups, d, d) with d = in · kernel; the sensitivity (out,).
    """

    n: int = 0
    found: Mapping[Statistic, Mapping[str, Tensor]] = field(default_factory=dict)

    def of(self, statistic: Statistic, name: str) -> Tensor:
        """One weight's statistic; MismatchError if it was not gathered, or that weight has none."""
        if statistic not in self.found:
            kinds = ", ".join(found.name for found in self.found) or "none"
            raise MismatchError(f"evidence: expected {statistic.name}, found {kinds}; see observe()")
        if name not in self.found[statistic]:
            raise MismatchError(f"{name}: expected its {statistic.name}, found none; is its layer used?")
        return self.found[statistic][name]


NO_EVIDENCE = Evidence()
Loss: TypeAlias = Callable[[Any, Any], Tensor]


def observe(
    model: nn.Module, batches: Iterable[tuple[Any, Any]], needs: Collection[Statistic], loss: Loss = F.cross_entropy
) -> Evidence:
    """Gather statistics of `model`'s weights, also of frozen ones, in one pass over `batches` in evaluation mode.

    Args:
        model: any module.
        batches: pairs (inputs, targets); the first axis counts examples.
        needs: what to gather: a criterion's or a pruner's `needs`. Without any, nothing is run.
        loss: from outputs and targets to the mean loss of the examples, in nats; with `sampled_labels` the Fisher
            statistics are those of the model's own distribution.

    Raises:
        MismatchError: `MOVEMENT` is asked for, or there are no batches.
        UnsupportedError: a layer whose inputs cannot be unfolded.
    """
    needs = set(needs)
    if MOVEMENT in needs:
        raise MismatchError("evidence: MOVEMENT comes from training under a rule, not from a pass over data")
    if not needs:
        return NO_EVIDENCE
    model = unwrap(model)
    seen = _Sums()
    with ExitStack() as stack:
        stack.enter_context(eval_mode(model))
        stack.enter_context(_gradients(model) if needs - OF_INPUTS else torch.no_grad())
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for layer in model.modules() if needs & OF_LAYERS else ():
            if isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
                for handle in seen.watch(names[id(layer.weight)], layer, needs):
                    stack.callback(handle.remove)
        for inputs, targets in batches:
            seen.count(model, needs, loss, (inputs, targets))
    if not seen.n:
        raise MismatchError("evidence: expected batches to observe, found none")
    return Evidence(seen.n, {statistic: seen.mean(statistic) for statistic in Statistic if statistic in needs})


def sampled_labels(outputs: Float[Tensor, "n classes"], targets: object) -> Tensor:
    """Cross-entropy, in nats, of labels drawn from the model's own distribution; `targets` are ignored.

    On data that a model has memorised, gradients vanish; those of sampled labels do not, and their second moment is the
    Fisher matrix itself (Kunstner et al. 2019). Draws from PyTorch's generator.
    """
    del targets
    labels = torch.multinomial(outputs.detach().softmax(1), 1).squeeze(1)
    return F.cross_entropy(outputs, labels)


def damped(grams: Float[Tensor, "groups d d"], fraction: float = 0.01) -> Float[Tensor, "groups d d"]:
    """Gram matrices in float64 with a fraction of their mean diagonal added, so that they can be inverted.

    An input that is always zero gets 1 instead, which does not affect its weights (SparseGPT; Frantar & Alistarh 2023).
    """
    grams = grams.double()
    diagonal = grams.diagonal(dim1=1, dim2=2)
    more = fraction * diagonal.mean(1, keepdim=True) + (diagonal == 0)
    return grams + torch.diag_embed(more.expand_as(diagonal))


@dataclass
class _Sums:
    """Sums over the examples so far."""

    n: int = 0
    sums: dict[Statistic, dict[str, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    n_running: int = 0  # examples of the forward pass, by which a mean loss divides the gradients of the sum

    def add(self, statistic: Statistic, name: str, value: Tensor) -> None:
        sums = self.sums[statistic]
        sums[name] = sums[name] + value if name in sums else value

    def mean(self, statistic: Statistic) -> dict[str, Tensor]:
        if statistic is NORM:
            return {name: value.sqrt().float() for name, value in self.sums[NORM].items()}
        return {name: (value / self.n).float() for name, value in self.sums[statistic].items()}

    def watch(self, name: str, layer: nn.Module, needs: set[Statistic]) -> Iterator[Any]:
        """Hooks that gather what passes through a layer, under its weight's name."""
        if needs & OF_INPUTS:

            def before(_: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
                patches = unfold(layer, (args[0] if args else named["input"]).detach(), name)
                if GRAM in needs:
                    self.add(GRAM, name, (patches.mT @ patches).double())
                if NORM in needs:
                    self.add(NORM, name, _like_weight(layer, patches.square().sum(1).double()))

            yield layer.register_forward_pre_hook(before, with_kwargs=True)
        if SENSITIVITY in needs:

            def after(_: nn.Module, args: object, output: Tensor) -> None:
                positions = output.numel() // (self.n_running * len(_weight(layer)))
                output.register_hook(
                    lambda delta: self.add(SENSITIVITY, name, _squares(layer, delta * self.n_running) / positions)
                )

            yield layer.register_forward_hook(after)

    def count(self, model: nn.Module, needs: set[Statistic], loss: Loss, batch: tuple[Any, Any]) -> None:
        """Run a batch, one example at a time if squares of examples' gradients are needed."""
        device, parameters = device_of(model), dict(model.named_parameters())
        inputs, targets = map_tensors(lambda tensor: tensor.to(device), tuple(batch))
        n = n_examples(inputs) or 0
        self.n += n
        for chosen in [slice(i, i + 1) for i in range(n)] if FISHER in needs else [slice(0, n)]:
            self.n_running = chosen.stop - chosen.start
            outputs = call(model, map_tensors(lambda tensor, chosen=chosen: tensor[chosen], inputs))
            if not needs - OF_INPUTS:
                continue
            value = loss(outputs, map_tensors(lambda tensor, chosen=chosen: tensor[chosen], targets))
            gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None and GRADIENT in needs:
                    self.add(GRADIENT, name, gradient.double() * self.n_running)
                if gradient is not None and FISHER in needs:
                    self.add(FISHER, name, gradient.double().square())


def unfold(layer: nn.Module, inputs: Tensor, name: str = "layer") -> Float[Tensor, "groups positions d"]:
    """The inputs that a layer's weight multiplies: one row a position, d = in/groups · kernel inputs.

    Raises:
        UnsupportedError: the layer is neither linear nor a convolution.
    """
    if isinstance(layer, nn.Linear):
        return inputs.reshape(1, -1, layer.in_features)
    if not isinstance(layer, CONVOLUTIONS):
        raise UnsupportedError(f"{name}: expected a linear layer or a convolution, found {type(layer).__name__}")
    n_axes = len(layer.kernel_size)
    batched = inputs if inputs.ndim == n_axes + 2 else inputs[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    patches = F.pad(batched, layer._reversed_padding_repeated_twice, mode=mode)
    for axis in range(n_axes):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        patches = patches.unfold(2 + axis, reach, layer.stride[axis])[..., :: layer.dilation[axis]]
    # (examples, in, *positions, *kernel) → (groups, examples · positions, in/groups · kernel)
    patches = patches.unflatten(1, (layer.groups, -1)).movedim((1, 0), (0, 1)).movedim(2, 2 + n_axes)
    d = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return patches.reshape(layer.groups, -1, d)


def _weight(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight)


def _squares(layer: nn.Module, delta: Tensor) -> Float[Tensor, " out"]:
    """Σ δ² over examples and positions."""
    axis = 1 if isinstance(layer, CONVOLUTIONS) else -1
    return delta.double().square().movedim(axis, 0).reshape(len(_weight(layer)), -1).sum(1)


def _like_weight(layer: nn.Module, of_inputs: Float[Tensor, "groups d"]) -> Tensor:
    """Repeat for the rows of each group, in a shape that broadcasts with the weight."""
    weight = _weight(layer)
    groups = len(of_inputs)
    rows = of_inputs if groups == 1 else of_inputs.repeat_interleave(weight.shape[0] // groups, 0)
    return rows.reshape(len(rows), *weight.shape[1:])


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """Every parameter requires gradients inside the block; afterwards as before."""
    frozen = nn.ParameterList(parameter for parameter in model.parameters() if not parameter.requires_grad)
    frozen.requires_grad_()
    try:
        with torch.enable_grad():
            yield
    finally:
        frozen.requires_grad_(False)
