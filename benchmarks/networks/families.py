"""The networks that `prediction` ranks: three families, trained, cut and shortened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.optim import AdamW

import laconic
from laconic import Training, zoo
from laconic.datasets import Split
from laconic.quantization import Grid
from laconic.search import CodeLengthRule
from laconic.training import Hold, Rule, Schedule
from laconic.training.schedules import exponential

BATCH = 50
DECAY, PRICE = 3.0, 3.0  # AdamW's; what a bit of data is worth under the code, in bits of file


def perceptron(side: int, *hidden: int) -> nn.Module:
    return zoo.mlp(side * side, *hidden, 10)


def convolutional(side: int, *n_channels: int) -> nn.Module:
    """Convolutions of 3 by 3, each followed by max-pooling, and a linear layer."""
    layers, n_in = list[nn.Module](), 1
    for n_out in n_channels:
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        n_in, side = n_out, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_in * side * side, 10))


def fit(model: nn.Module, examples: Split, training: Training, rules: Sequence[Rule] = ()) -> nn.Module:
    laconic.train(model, examples.batches(BATCH, shuffle=True), training, rules)
    return model


def pruned(model: nn.Module, examples: Split, training: Training, amount: float) -> nn.Module:
    return fit(model, examples, training, [Hold(laconic.prune_(model, amount))])


def halved(model: nn.Module, examples: Split, training: Training) -> nn.Module:
    """Half of each layer's channels or neurons are cut, the smallest."""
    coupling = laconic.surgery.find_channels(model, examples.inputs[:1])
    pruner = laconic.pruning.Pruner(
        unit=laconic.pruning.units.Coupled(coupling), scope=laconic.pruning.scopes.PerTensor()
    )
    plan = laconic.surgery.Plan.of(coupling, pruner.at(0.5).mask(model), model)
    return fit(laconic.shrink(model, plan), examples, training)


def shortened(model: nn.Module, examples: Split, training: Training) -> nn.Module:
    price = Schedule(PRICE, training.epochs * len(examples) // BATCH // 2, exponential, initial=10 * PRICE)
    rule = CodeLengthRule(price=price, n_examples=len(examples), first=Grid(0.3), lr=1e-2)
    return fit(model, examples, training, [rule])


@dataclass(frozen=True)
class Network:
    """A network, and how it is trained.

    Attributes:
        family: makes a network for images of a side, of some widths.
        times: as many as the usual epochs.
        decay: of the weights.
        then: what is done with the trained network, and how it is trained on.
    """

    family: Callable[..., nn.Module]
    widths: tuple[int, ...] = ()
    times: float = 1.0
    decay: float = 0.0
    then: Callable[[nn.Module, Split, Training], nn.Module] | None = None


def _variants(name: str, family: Callable[..., nn.Module], *widths: int) -> dict[str, Network]:
    of = partial(Network, family, widths)
    return {
        name: of(),
        f"{name}, decay": of(decay=DECAY),
        f"{name}, short": of(times=0.1),
        f"{name}, under the code": of(then=shortened),
    }


def _cut(name: str, family: Callable[..., nn.Module], *widths: int) -> dict[str, Network]:
    of = partial(Network, family, widths)
    return {f"{name}, pruned": of(then=partial(pruned, amount=0.9)), f"{name}, halved": of(then=halved)}


WIDTHS = ((16,), (256,), (64, 64), (32, 32, 32, 32))
NETWORKS = {
    **_variants("linear", perceptron),
    **{f"perceptron {'-'.join(map(str, w))}": Network(perceptron, w) for w in WIDTHS},
    "perceptron 256, decay": Network(perceptron, (256,), decay=DECAY),
    **_variants("perceptron 64", perceptron, 64),
    **_cut("perceptron 64", perceptron, 64),
    "perceptron 64, long": Network(perceptron, (64,), times=4.0),
    "convolutional 4-8": Network(convolutional, (4, 8)),
    **_variants("convolutional 8-16", convolutional, 8, 16),
    **_cut("convolutional 8-16", convolutional, 8, 16),
}


def trained(network: Network, examples: Split, epochs: int, seed: int) -> nn.Module:
    """The network of a seed; `epochs` are those of a usual training."""
    torch.manual_seed(seed)
    optimizer = partial(AdamW, lr=1e-3, weight_decay=network.decay)
    first = Training(max(1, round(network.times * epochs)), optimizer, seed=seed)
    model = fit(network.family(examples.inputs.shape[-1], *network.widths), examples, first)
    if network.then:
        model = network.then(model, examples, Training(epochs, optimizer, seed=seed + 1000))
    return model.eval()
