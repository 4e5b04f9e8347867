"""Rules that project weights after each step of the optimizer: onto small weights, or onto few values.

Proximal steps: sparsity by a penalty that is not smooth (Daubechies et al. 2004). For λ Σ_g √n_g‖w_g‖ over groups of
n_g weights (group lasso: Yuan & Lin 2006) and a learning rate η, a group shrinks by the factor max(0, 1 − ηλ√n_g/‖w_g‖)
= max(0, 1 − ηλ/rms(w_g)), and is exactly zero below. For single weights this is soft thresholding: sign(w)·max(0, |w| −
ηλ), for λ‖w‖₁.

Shared values: weights of a tensor that are equal stay equal (Han, Mao & Dally 2016, §3). The gradient of a shared value
is the sum of its weights' gradients. Before the optimizer's step each weight is given that sum, so equal weights move
alike. After it, each group is set to its mean, for optimizers whose state or preconditioner tells its weights apart.
Zero is not trained: pruned weights stay at zero, with momentum and weight decay too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from laconic.core import distributed
from laconic.errors import MismatchError
from laconic.model.modules import unwrap
from laconic.model.selectors import compressible, quantized
from laconic.pruning.pruner import Parameters
from laconic.pruning.units import EACH_WEIGHT, Unit
from laconic.training.rules import Rule, State, StepContext
from laconic.training.schedules import Value


@dataclass(frozen=True)
class Proximal(Rule):
    """L1, or group lasso, as an exact proximal step after each step of the optimizer.

    The threshold is in the units of the weights: it scales with the current learning rate of the parameter's group, but
    not with Adam's second moments.

    Attributes:
        penalty: λ of the mean loss + λ‖w‖₁; a number, or a function of the step, such as a `Schedule`.
        unit: what shrinks together, such as ``Block(1, None)`` for neurons and filters.
        parameters: which tensors of a model shrink; ``partial(compressible, exclude=["conv1"])`` spares some.
    """

    penalty: Value
    unit: Unit = EACH_WEIGHT
    parameters: Parameters = compressible

    @override
    def init(self, now: StepContext) -> State:
        self._weights(now)  # refuses what the optimizer does not train
        return {}

    @override
    def update(self, state: State, now: StepContext) -> State:
        weights, rates = self._weights(now)
        penalty = self.penalty(now.step) if callable(self.penalty) else self.penalty
        mean_squares = self.unit.pool({name: weight.square() for name, weight in weights.items()})
        rms = self.unit.spread({name: square.sqrt() for name, square in mean_squares.items()}, weights)
        for name, weight in weights.items():
            # 0/0 is a group that is zero already, with no penalty on it; + 0 makes a zero of −0.
            weight.mul_((1 - rates[name] * penalty / rms[name]).nan_to_num(0).clamp_(min=0)).add_(0.0)
        return state

    def _weights(self, now: StepContext) -> tuple[Mapping[str, Tensor], dict[str, float]]:
        """The tensors that shrink, and their learning rates."""
        weights = self.unit.reach(self.parameters(now.model), unwrap(now.model))
        rates = {id(p): float(group["lr"]) for group in now.optimizer.param_groups for p in group["params"]}
        for name, weight in weights.items():
            if id(weight) not in rates:
                raise MismatchError(f"{name}: expected among the optimizer's parameters, found none; exclude it")
        return weights, {name: rates[id(weight)] for name, weight in weights.items()}


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
