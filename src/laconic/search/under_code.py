"""Training under the code: the network is charged for its weights what the file will cost.

Forward sees the weights as a file would hold them, Δ·round(θ/Δ). The loss's gradient goes straight through the rounding
(Bengio, Léonard & Courville 2013) to θ and to the scale Δ (Esser et al. 2020). The mean loss gains the bits of the
integers, at the prices of the symbol model that would code them now: for each weight, the cost of zero, ±1, ±2 and so
on at its place in the stream. Between 0, 1 and powers of two the bits are interpolated, so that a price has a gradient
before a weight changes. Sparsity, bit widths and dead neurons follow and are not set; a removed weight comes back if it
is worth its price.

Uniform noise in place of rounding (Ballé, Laparra & Simoncelli 2017) can come first, while the scales are found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from laconic.coding.layout import Layout
from laconic.coding.stream import prices
from laconic.core.distributed import generator
from laconic.model.selectors import quantized
from laconic.pruning.pruner import Parameters
from laconic.quantization.grid import Grid, exactly, widened
from laconic.quantization.rounded import PerTensorScale
from laconic.training.rules import State, StepContext
from laconic.training.schedules import Value
from laconic.training.stochastic import Named, StochasticWeights

NATS_PER_BIT = math.log(2)
N_LENGTHS = 17  # of integers in bits; longer ones have no place in training
FINE_GRID = Grid(0.1)
FIRST_SCALE = 0.1  # for tensors of zeros


@dataclass(frozen=True, kw_only=True)
class CodeLengthRule(StochasticWeights):
    """Train weights, and the scales of their grids, to the shortest description of weights and data.

    It minimises file bits + price · data bits. After training the parameters lie on grids, which
    ``save(model, path, None)`` finds and codes: no bit of them changes.

    Attributes:
        price: bits of file that a bit of data is worth, above 0: 1 for a two-part code of the training set. A number,
            or a function of the step: ``Schedule(2, n, exponential, initial=20)`` begins at ten times the final price.
        n_examples: length of the training set.
        first: initial grids of tensors that are on none yet.
        noisy_until: the step until which uniform noise takes the place of rounding.
        every: steps between two updates of the prices.
        parameters: which parameters lie on grids; by default those that `save` quantises.
    """

    price: Value
    n_examples: int
    first: Grid = FINE_GRID
    noisy_until: int = 0
    every: int = 100
    parameters: Parameters = quantized

    @override
    def start(self, means: Named) -> Named:
        grids = self.first.per_tensor(means)
        return {name: mean.new_tensor(math.log(_first_scale(grids[name], mean))) for name, mean in means.items()}

    @override
    def init(self, now: StepContext) -> State:
        state = super().init(now)
        return {**state, "prices": _prices(state)}

    @override
    def update(self, state: State, now: StepContext) -> State:
        state = super().update(state, now)
        return {**state, "prices": _prices(state)} if now.step % self.every == 0 else state

    @override
    def sample(self, state: State, step: int) -> Named:
        x, deltas = _in_scales(state)
        if step < self.noisy_until:
            draw = generator(self.seed, step, x.device)
            moved = torch.rand(x.shape, generator=draw, device=x.device).to(x) - 0.5
        else:
            moved = (x.round() - x).detach()
        means = state["means"]
        parts = (deltas * (x + moved)).split([mean.numel() for mean in means.values()])
        return {name: part.view_as(means[name]) for name, part in zip(means, parts, strict=True)}

    @override
    def cost(self, state: State, step: int) -> Tensor:
        tables, first = state["prices"]["tables"], state["prices"]["first"]
        x = _in_scales(state)[0].abs()
        length = torch.frexp(x.detach())[1].clamp(0, N_LENGTHS - 2)  # 0 below 1, then 2^(length − 1) ≤ x
        below = (2.0**length).floor_divide(2)
        low, high = tables.take(first + length), tables.take(first + length + 1)
        bits = (low + (x - below) / below.clamp(min=1) * (high - low)).sum()
        price = self.price(step) if callable(self.price) else self.price
        return NATS_PER_BIT / (price * self.n_examples) * bits

    @override
    def deterministic(self, state: State) -> Named:
        deltas = _deltas(state)
        return {name: _rounded(mean, deltas[name]) * deltas[name] for name, mean in state["means"].items()}


def _deltas(state: State) -> Named:
    """The scales, bfloat16s, through which the gradient goes straight, divided by √n (Esser et al. 2020)."""
    logarithms = torch.stack(list(state["trained"].values()))
    factors = logarithms.new_tensor([mean.numel() ** -0.5 for mean in state["means"].values()])
    scales = (factors * logarithms + ((1 - factors) * logarithms).detach()).exp()
    scales = scales + (scales.bfloat16().to(scales.dtype) - scales).detach()
    return dict(zip(state["means"], scales.unbind(), strict=True))


def _in_scales(state: State) -> tuple[Tensor, Tensor]:
    """All weights in units of their scales, and the scale of each, flat: many small tensors cost as one."""
    means, deltas = state["means"], _deltas(state)
    each = torch.cat([deltas[name].expand(mean.numel()) for name, mean in means.items()])
    return torch.cat([mean.flatten() for mean in means.values()]) / each, each


def _rounded(mean: Tensor, delta: Tensor) -> Tensor:
    return (mean / delta).detach().round() + 0.0  # no −0


def _prices(state: State) -> Named:
    """The prices of the integers as they are: tables, one after the other, and where each weight's begins."""
    tables, first, n_tables = list[Tensor](), list[Tensor](), 0
    deltas = _deltas(state)
    for name, mean in state["means"].items():
        q = _rounded(mean, deltas[name]).flatten().int().cpu().numpy()
        found = prices(q, Layout.of(mean.shape), N_LENGTHS)
        tables.append(torch.from_numpy(found.tables).to(mean.device))
        first.append((torch.from_numpy(found.index).to(mean.device).long() + n_tables) * N_LENGTHS)
        n_tables += len(found.tables)
    return {"tables": torch.cat(tables), "first": torch.cat(first)}


def _first_scale(grid: Grid, mean: Tensor) -> float:
    if not bool(mean.any()):
        return FIRST_SCALE
    found = exactly(mean.cpu() + 0.0)  # −0 is on no grid
    if found and isinstance(found.dequantizer, PerTensorScale):
        return found.dequantizer.scale
    return grid.scale(widened(mean.cpu()).numpy()) or FIRST_SCALE
