"""Training shared values: weights of a tensor that are equal stay equal (Han, Mao & Dally 2016, §3).

The gradient of a shared value is the sum of its weights' gradients. Before the optimizer's step each weight is given
that sum, so equal weights move alike. After it, each group is set to its mean, for optimizers whose state or
preconditioner tells its weights apart. Zero is not trained: pruned weights stay at zero, with momentum and weight decay
too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from laconic.core import distributed
from laconic.model.selectors import quantized
from laconic.pruning.pruner import Parameters
from laconic.training.rules import Rule, State, StepContext


@dataclass(frozen=True)
class SharedValues(Rule):
    """Keep equal weights of a tensor equal, and zeros zero: fine-tunes what `Codebook` has rounded.

    Round the weights first: ``save(model, path, Codebook(16))``, then ``load(path, into=model)``. After training,
    saving with the same codebook keeps them exactly. A gradient is a sum over a group of weights: plain gradient
    descent needs a lower rate than without the rule, Adam does not. The rule acts on `parameters` of the model, by
    default those that `save` quantises.
    """

    parameters: Parameters = quantized

    @property
    @override
    def needs_gradients(self) -> bool:
        return True

    @override
    def init(self, now: StepContext) -> State:
        found: dict[str, Tensor] = {}
        for name, weight in self.parameters(now.model).items():
            # A label for each weight, equal where weights are: 0 for zeros, from 1 up for other values.
            values, places = weight.detach().unique(return_inverse=True)
            found[name] = ((values != 0).cumsum(0)[places]).masked_fill(weight == 0, 0)
        groups = distributed.broadcast(found)
        counts = {name: labels.flatten().bincount(minlength=1).clamp(min=1) for name, labels in groups.items()}
        return self.update({"groups": groups, "counts": counts}, now)

    @override
    def before(self, state: State, now: StepContext) -> State:
        for name, weight in self.parameters(now.model).items():
            if weight.grad is not None:
                groups = state["groups"][name]
                # In place: it may be a view of a bucket of data parallelism.
                weight.grad.copy_(_sums(weight.grad, groups, state["counts"][name])[groups])
        return state

    @override
    def update(self, state: State, now: StepContext) -> State:
        weights = self.parameters(now.model)
        counts = state["counts"]
        sums = {n: _sums(weight, state["groups"][n], counts[n]) for n, weight in weights.items()}
        means = distributed.broadcast({n: total / counts[n] for n, total in sums.items()})
        for name, weight in weights.items():
            weight.copy_(means[name][state["groups"][name]])
        return state


def _sums(values: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """The sum of each group, in float64, where a sum of equal numbers is exact; 0 for zeros."""
    sums = torch.zeros(len(counts), dtype=torch.float64, device=values.device)
    sums.index_add_(0, groups.flatten(), values.detach().flatten().double())
    sums[0] = 0
    return sums
