"""Training shared values: weights of a tensor that are equal stay equal (Han, Mao & Dally 2016, §3).

The loss's gradient by a shared value is the sum of those by the weights that have it. Before the optimizer's
step each weight is given that sum, so equal weights move alike; after it, each group is set to its mean, for
optimizers whose state or preconditioner tells its weights apart. Zero is no value to train: what was pruned
stays at zero, with momentum and weight decay too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from laconic.core import distributed
from laconic.model.modules import unwrap
from laconic.model.selectors import names_to_quantize
from laconic.pruning.pruner import Parameters
from laconic.training.rules import Rule, State, StepContext


def quantized(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that `save` quantises by default: what compresses, and the biases beside it."""
    names = names_to_quantize(model, None, ())
    return {name: p for name, p in unwrap(model).named_parameters() if name in names}


@dataclass(frozen=True)
class SharedValues(Rule):
    """Keep equal weights of a tensor equal, and zeros zero: fine-tunes what `Codebook` has rounded.

    Round the weights first: ``save(model, path, Codebook(16))``, then ``load(path, into=model)``. After
    training, saving alike keeps them exactly. A gradient is a sum over a whole group of weights: plain
    gradient descent takes a lower rate than without the rule, Adam's steps do not depend on it.

    Attributes:
        parameters: which parameters share values; by default those that `save` quantises.
    """

    parameters: Parameters = quantized

    @property
    def needs_gradients(self) -> bool:
        """They are what is summed."""
        return True

    def init(self, now: StepContext) -> State:
        """Note which weights are equal, on rank 0."""
        groups = {name: _groups(weight) for name, weight in self.parameters(now.model).items()}
        groups = distributed.broadcast(groups)
        return self.update({"groups": groups, "counts": {n: _counts(g) for n, g in groups.items()}}, now)

    def before(self, state: State, now: StepContext) -> State:
        """Turn each gradient into the sum over its group; that of zeros into 0."""
        for name, weight in self.parameters(now.model).items():
            if weight.grad is not None:
                groups = state["groups"][name]
                # In place: it may be a view of a bucket of data parallelism.
                weight.grad.copy_(_sums(weight.grad, groups, state["counts"][name])[groups])
        return state

    def update(self, state: State, now: StepContext) -> State:
        """Set each group to its mean: that of rank 0, since sums on a GPU vary in their last bits."""
        weights = self.parameters(now.model)
        counts = state["counts"]
        sums = {n: _sums(weight, state["groups"][n], counts[n]) for n, weight in weights.items()}
        means = distributed.broadcast({n: total / counts[n] for n, total in sums.items()})
        for name, weight in weights.items():
            weight.copy_(means[name][state["groups"][name]])
        return state


def _groups(weight: Tensor) -> Tensor:
    """A label for each weight, equal where weights are: 0 for zeros, from 1 up for other values."""
    values, places = weight.detach().unique(return_inverse=True)
    return ((values != 0).cumsum(0)[places]).masked_fill(weight == 0, 0)


def _counts(groups: Tensor) -> Tensor:
    """How many weights have each label; 1 for zeros if there are none."""
    return groups.flatten().bincount(minlength=1).clamp(min=1)


def _sums(values: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """Of each group, in float64, where a sum of equal numbers is exact; 0 of zeros."""
    sums = torch.zeros(len(counts), dtype=torch.float64, device=values.device)
    sums.index_add_(0, groups.flatten(), values.detach().flatten().double())
    sums[0] = 0
    return sums
