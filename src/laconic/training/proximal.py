"""Sparsity by a penalty that is not smooth: a proximal step after the optimizer's (Daubechies et al. 2004).

For λ Σ_g √n_g‖w_g‖ over groups of n_g weights (group lasso: Yuan & Lin 2006) and a learning rate η, a group shrinks by
the factor max(0, 1 − ηλ√n_g/‖w_g‖) = max(0, 1 − ηλ/rms(w_g)), and is exactly zero below. For single weights this is
soft thresholding: sign(w)·max(0, |w| − ηλ), for λ‖w‖₁.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from laconic.errors import MismatchError
from laconic.model.modules import unwrap
from laconic.model.selectors import compressible
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
