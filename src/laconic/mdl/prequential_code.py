"""Prequential codes: labels sent block by block, each given those before (Dawid 1984).

Sender and receiver have the inputs, agree on how networks are made and trained, and send no weights. The first block is
coded uniformly; at each boundary networks are trained from scratch on the labels sent so far, and the next block is
coded with their predictions,

    Σ −log2 p(label | input, labels of earlier blocks)   (Blier & Ollivier 2018).

So the code has no bits for a model, and its total is comparable with the total of a file and the labels given it. For
labels of representations it is the online code of Voita & Titov (2020), `probe`.

Several learners are mixed. Before label t learner k has the weight w_k, and labels have the probabilities Σ_k w_k p_k.
A label turns w_k into w_k p_k / Σ_j w_j p_j (Bayes); the b-th boundary between blocks coded by learners, where each is
trained anew, shares the part a_b = (b + 1)⁻² of all weight among all K of them:

    w_k ← (1 − a_b) w_k + a_b / K   (fixed share: Herbster & Warmuth 1998; decreasing rates as in the switch
                                     distribution: van Erven, Grünwald & de Rooij 2012).

It is the Bayesian mixture of all sequences of learners with this prior over switches, hence at most

    log2 K  +  2 log2(b + 1) + log2 K for each boundary b where the sequence switches  +  1

bits longer than the best sequence's code. The last bit is for all boundaries where it does not switch, since
Π (1 − a_b) > ½. Weights depend only on labels already sent, so the receiver has them too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from laconic import zoo
from laconic.core.text import as_text
from laconic.datasets.standard import Split
from laconic.description.describe import DataCode
from laconic.description.ledger import Ledger, LedgerRow
from laconic.errors import NonFiniteError
from laconic.model.modules import device_of
from laconic.training.loop import Batches, Training, train

if TYPE_CHECKING:
    from rich.table import Table

UNIFORM = "uniform"  # the reference's label
_EXAMPLES_AT_ONCE = 1000  # bounds the memory of predictions
_PROBE_BATCH = 64
_TIMESTEPS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25, 50, 100)  # per cent of all examples


@dataclass(frozen=True)
class Learner:
    """How to learn labels from those sent so far.

    Attributes:
        name: unique name, in tables and files.
        model: a function that makes a fresh network, whose outputs in evaluation mode are logits (examples, classes).
            It is called under a seed.
        training: a function from the number of examples sent to how to train on them; its seed is replaced.
        batches: a function from the examples sent to batches, iterated once an epoch.
    """

    name: str
    model: Callable[[], nn.Module]
    training: Callable[[int], Training]
    batches: Callable[[Split], Batches]


@dataclass(frozen=True)
class SentBlock:
    """Labels sent together.

    Attributes:
        end: number of labels sent with it and the blocks before.
        code: its code. The accuracy is that of the most probable classes; ties go to the first.
        by_learner: its code with each learner alone, by name.
    """

    end: int
    code: DataCode
    by_learner: Mapping[str, DataCode]


@dataclass(frozen=True)
class PrequentialCode:
    """Labels sent block by block, each given those before.

    Attributes:
        blocks: blocks in order; the first is coded uniformly.
        n_classes: number of classes of the labels.
    """

    blocks: tuple[SentBlock, ...]
    n_classes: int

    @property
    def n_examples(self) -> int:
        """Number of labels sent."""
        return self.blocks[-1].end

    @property
    def total_bits(self) -> float:
        """Bits of all labels: an ideal code length, which an arithmetic coder reaches to within two bits."""
        return sum(block.code.bits for block in self.blocks)

    @property
    def learner_bits(self) -> dict[str, float]:
        """The total with each learner alone, by name."""
        return {name: sum(block.by_learner[name].bits for block in self.blocks) for name in self.blocks[0].by_learner}

    @property
    def uniform_bits(self) -> float:
        """Bits of the same labels when all classes are equally probable, n log2 K."""
        return self.n_examples * math.log2(self.n_classes)

    @property
    def compression(self) -> float:
        """Bits of the uniform code divided by the total."""
        return self.uniform_bits / self.total_bits

    @property
    def ledger(self) -> Ledger:
        """A ledger without bits for a model: all bits are for the data."""
        row = LedgerRow("", "targets, each block given those before", self.total_bits, measured=False, of_data=True)
        return Ledger((row,), {UNIFORM: self.uniform_bits}, self.n_examples)

    def to_dict(self) -> dict[str, Any]:
        """The code as plain values, for JSON."""
        names = ("n_examples", "n_classes", "total_bits", "uniform_bits", "compression", "learner_bits")
        return {name: getattr(self, name) for name in names} | {
            "blocks": [
                {
                    "end": block.end,
                    "n_examples": block.code.n_examples,
                    "bits": block.code.bits,
                    "accuracy": block.code.accuracy,
                    "learner_bits": {name: code.bits for name, code in block.by_learner.items()},
                    "learner_accuracy": {name: code.accuracy for name, code in block.by_learner.items()},
                }
                for block in self.blocks
            ]
        }

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=f"Prequential code: {self.compression:.1f}× shorter", show_footer=True)
        table.add_column("labels to", footer="total")
        alone = self.learner_bits if len(self.learner_bits) > 1 else {}
        for name, bits in {"bits": self.total_bits, **{f"{n} alone": b for n, b in alone.items()}}.items():
            table.add_column(name, justify="right", footer=f"{bits:,.0f}")
        table.add_column("bits a label", justify="right", footer=f"{self.total_bits / self.n_examples:.3f}")
        table.add_column("accuracy", justify="right")
        for block in self.blocks:
            bits = [block.code.bits, *(block.by_learner[name].bits for name in alone)]
            each = f"{block.code.bits / block.code.n_examples:.3f}"
            table.add_row(f"{block.end:,}", *(f"{b:,.0f}" for b in bits), each, f"{block.code.accuracy:.1%}")
        table.add_section()
        table.add_row(UNIFORM, f"{self.uniform_bits:,.0f}")
        return table


def doubling(n: int, first: int = 8) -> tuple[int, ...]:
    """Blocks' ends first, 2·first, 4·first, … and n: those of Blier & Ollivier (2018) for MNIST.

    Raises:
        ValueError: a number is not positive.
    """
    if n < 1 or first < 1:
        raise ValueError(f"doubling: expected positive numbers, found n = {n}, first = {first}")
    return (*takewhile(lambda end: end < n, (first << i for i in count())), n)


def timesteps(n: int) -> tuple[int, ...]:
    """Blocks' ends at 0.1, 0.2, 0.4, … 25, 50 and 100 % of n examples, those of Voita & Titov (2020), each once.

    Raises:
        ValueError: n is not positive.
    """
    if n < 1:
        raise ValueError(f"timesteps: expected a positive number of examples, found {n}")
    return tuple(sorted({max(1, round(n * percent / 100)) for percent in _TIMESTEPS}))


def prequential(
    learners: Sequence[Learner],
    data: Split,
    ends: Sequence[int],
    n_classes: int,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
) -> PrequentialCode:
    """Code the labels of `data` block by block, each given those before.

    Learners are trained only on inputs and labels that were sent; they see a block's inputs when they predict it.

    Args:
        learners: one, or several that are mixed.
        data: targets are labels, integers from 0; they are sent in this order.
        ends: number of labels sent after each block, ascending; those after the last are not sent.
        n_classes: number of classes.
        seed: decides networks' weights and training, together with the block and the learner's place.
        folder: keeps a checkpoint of each training, so that the same call continues after an interruption. Delete it
            after changing learners or data.

    Raises:
        ValueError: no learner, or two of one name; ends that do not ascend or lie outside the data; a label that is not
            a class; outputs that are not one logit per class.
        NonFiniteError: a logit is NaN or infinite.
    """
    _check(learners, data, ends, n_classes)
    log_weights = torch.full((len(learners),), -math.log(len(learners)), dtype=torch.float64)
    blocks = []
    for number, (start, end) in enumerate(pairwise((0, *ends))):
        sent = Split(data.inputs[:start], data.targets[:start])
        block = Split(data.inputs[start:end], data.targets[start:end])
        if number == 0:
            predicted = torch.full((len(learners), end, n_classes), -math.log(n_classes), dtype=torch.float64)
        else:
            found = []
            for place, learner in enumerate(learners):
                own_seed = int(np.random.SeedSequence((seed, number, place)).generate_state(1)[0])
                path = None if folder is None else Path(folder) / f"{learner.name}-{seed}-{start}.safetensors"
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                torch.manual_seed(own_seed)
                model = learner.model()
                training = replace(learner.training(len(sent)), seed=own_seed)
                train(model, learner.batches(sent), training, checkpoint=path)
                found.append(_log_probabilities(learner.name, model, block, n_classes))
            predicted = torch.stack(found)
        if number > 1:
            part = number**-2  # of all weight, shared equally
            share = torch.tensor(part / len(log_weights), dtype=torch.float64).log()
            log_weights = torch.logaddexp(log_weights + math.log1p(-part), share)
        mixture, log_weights = _mixed(predicted, block.targets, log_weights)
        alone = {learner.name: _code(one, block.targets) for learner, one in zip(learners, predicted, strict=True)}
        blocks.append(SentBlock(end, _code(mixture, block.targets), alone))
    return PrequentialCode(tuple(blocks), n_classes)


def _check(learners: Sequence[Learner], data: Split, ends: Sequence[int], n_classes: int) -> None:
    names = [learner.name for learner in learners]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"learners: expected at least one, each of its own name, found {names}")
    if not ends or any(end <= start for start, end in pairwise((0, *ends))) or ends[-1] > len(data):
        raise ValueError(f"ends: expected ascending numbers of 1 to {len(data)} labels, found {list(ends)}")
    low, high = map(int, data.targets.aminmax())
    if low < 0 or high >= n_classes:
        raise ValueError(f"labels: expected 0 to {n_classes - 1}, found {low} to {high}")


@torch.no_grad()
def _log_probabilities(name: str, model: nn.Module, block: Split, n_classes: int) -> Float[Tensor, "examples classes"]:
    """Logarithms (base e) of the probabilities of every class."""
    model.eval()
    device, found = device_of(model), []
    for inputs in block.inputs.split(_EXAMPLES_AT_ONCE):
        logits = model(inputs.to(device))
        if logits.shape != (expected := (len(inputs), n_classes)):
            raise ValueError(f"{name}: expected logits of shape {expected}, found {tuple(logits.shape)}")
        found.append(logits.double().log_softmax(1).cpu())
    log_probabilities = torch.cat(found)
    if not log_probabilities.isfinite().all():
        raise NonFiniteError(f"{name}: expected finite logits, found NaN or infinity")
    return log_probabilities


def _mixed(
    log_probabilities: Float[Tensor, "learners examples classes"],
    labels: Int64[Tensor, " examples"],
    log_weights: Float[Tensor, " learners"],
) -> tuple[Float[Tensor, "examples classes"], Float[Tensor, " learners"]]:
    """The mixture's predictions, each with weights by the labels before it, and the weights after all labels."""
    of_labels = log_probabilities[:, torch.arange(len(labels)), labels]
    after = log_weights[:, None] + of_labels.cumsum(1)
    before = torch.cat([log_weights[:, None], after[:, :-1]], 1)
    mixture = (before.log_softmax(0)[..., None] + log_probabilities).logsumexp(0)
    return mixture, after[:, -1].log_softmax(0)


def _code(log_probabilities: Float[Tensor, "examples classes"], labels: Int64[Tensor, " examples"]) -> DataCode:
    nats = -log_probabilities[torch.arange(len(labels)), labels].sum()
    n_right = int((log_probabilities.argmax(1) == labels).sum())
    return DataCode(len(labels), float(nats) / math.log(2), n_right, len(labels))


def probe(
    features: Float[Tensor, "examples features"],
    labels: Int64[Tensor, " examples"],
    n_classes: int,
    hidden: Sequence[int] = (),
    ends: Sequence[int] | None = None,
    seed: int = 0,
) -> PrequentialCode:
    """The online code of labels from representations: how easily a probe finds them (Voita & Titov 2020).

    Accuracy measures whether a probe finds the labels in the end; the bits also measure the effort. The probe is
    trained with Adam, at a rate that falls from 0.01 to 0, for at least 100 steps of 64 examples and 10 epochs.
    Features are first scaled to mean 0 and deviation 1 over all examples, which the receiver has.

    Args:
        features: outputs of the probed layer; examples should be in random order.
        labels: integers from 0.
        n_classes: number of classes.
        hidden: units of the probe's hidden layers; by default it is linear.
        ends: ends of the blocks; by default `timesteps` of all examples.
        seed: decides the probes' weights and training.

    Raises:
        ValueError: as `prequential` does.
    """
    deviation, mean = torch.std_mean(features, 0, correction=0)
    scaled = (features - mean) / torch.where(deviation > 0, deviation, 1.0)
    learner = Learner(
        name="probe",
        model=partial(zoo.mlp, features.shape[1], *hidden, n_classes),
        training=_probe_training,
        batches=lambda sent: sent.batches(_PROBE_BATCH, shuffle=True),
    )
    data = Split(scaled, labels)
    return prequential([learner], data, timesteps(len(data)) if ends is None else ends, n_classes, seed)


def _probe_training(n_examples: int) -> Training:
    epochs = max(10, math.ceil(100 / math.ceil(n_examples / _PROBE_BATCH)))
    falling = partial(LambdaLR, lr_lambda=lambda epoch: 1 - epoch / epochs)
    return Training(epochs, partial(torch.optim.Adam, lr=0.01), scheduler=falling)
