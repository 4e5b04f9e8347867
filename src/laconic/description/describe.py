"""The description length of a network: the bits of a file that decodes, and those of the data given the network.

The data's bits send the targets to someone who has the inputs and the network. A code built on the network's
predictions p(y|x) spends −log2 p(y|x) bits on a target y (Shannon); an arithmetic coder reaches the sum to within two
bits.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from laconic.codec.tensor import tensor_parts
from laconic.description.ledger import BIT_EACH, DENSE, Ledger, LedgerRow
from laconic.errors import check_type
from laconic.file.container import Reader
from laconic.file.save_load import DEFAULT, State, decode_each, load, save
from laconic.model.modules import copied, eval_mode, n_nonzero, unwrap
from laconic.model.objective import DEFAULT_OBJECTIVE, Objective, check_batches
from laconic.model.tasks import Judged
from laconic.quantization.grid import Quantizer


@dataclass(frozen=True)
class DataCode:
    """How well a network predicts some examples.

    Attributes:
        n_examples: number of examples.
        bits: Σ −log2 p(target | input).
        n_right: number of labels whose most probable value is right; None if the task is no classification.
        n_labels: number of labels: one for each example, or for each pixel, token, …
        entries: the same for each example, or for each batch whose loss does not divide.
    """

    n_examples: int
    bits: float
    n_right: int | None
    n_labels: int
    entries: Judged | None = field(default=None, repr=False, compare=False)

    @property
    def accuracy(self) -> float:
        """The fraction of labels that are right; NaN if the task is no classification."""
        return math.nan if self.n_right is None or not self.n_labels else self.n_right / self.n_labels

    @property
    def loss(self) -> float:
        """Mean loss of a label, in nats."""
        return self.bits * math.log(2) / self.n_labels if self.n_labels else math.nan

    @property
    def score(self) -> float:
        """The accuracy; where the task is no classification, minus the loss."""
        return -self.loss if self.n_right is None else self.accuracy


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Any], objective: Objective = DEFAULT_OBJECTIVE) -> DataCode:
    """Code the targets of `batches` with the model's predictions; the mode of each module is restored.

    Args:
        model: on its own device; batches are moved there.
        batches: see `laconic.model.Objective`.
        objective: what the targets are, or the loss in nats; by default what the first batch shows.

    Raises:
        MismatchError: batches and outputs do not fit the objective.
    """
    check_type("model", model, nn.Module)
    check_batches(batches, once=True)
    n_examples, judged = 0, list[Judged]()
    with eval_mode(model), objective.on(model) as answer:
        for batch in batches:
            answered = answer(batch)
            n_examples += answered.n
            judged.append(answered.judged)
    if not judged:
        return DataCode(0, 0.0, None, 0)
    nats, n_labels = (torch.cat([getattr(j, of) for j in judged]).cpu() for of in ("nats", "n_labels"))
    right = [j.n_right for j in judged if j.n_right is not None]
    n_right = torch.cat(right).cpu() if len(right) == len(judged) else None
    all_right = None if n_right is None else int(n_right.sum())
    entries = Judged(nats, n_labels, n_right)
    return DataCode(n_examples, float(nats.sum()) / math.log(2), all_right, int(n_labels.sum()), entries)


def describe(
    model_or_path: nn.Module | str | os.PathLike[str],
    batches: Iterable[Any] = (),
    into: nn.Module | None = None,
    quantizer: Quantizer | None = DEFAULT,
    objective: Objective = DEFAULT_OBJECTIVE,
    base: State | None = None,
) -> Ledger:
    """Count the bits of a network and of the data given it.

    A model is first saved to a temporary file: its bits are that file's, by tensor and part, and the data's are given
    the network decoded from it. Two references stand beside them: every number of the state as float32, and one bit for
    each parameter that is not zero, a common simplification.

    Args:
        model_or_path: a model, or a `.lac` file.
        batches: those whose targets the network codes, see `laconic.model.Objective`; none for the model's bits alone.
        into: for a file with batches, a model of its architecture, dense if the file has a plan; it is not changed.
        quantizer: for a model, how it is saved.
        objective: what the targets are, or the loss in nats; by default what the first batch shows.
        base: the parent of the differences; its own bits are not counted.

    Raises:
        ValueError: batches are given for a file without a model to decode it into.
        FormatError: the file is damaged.
    """
    if isinstance(model_or_path, nn.Module):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.lac"
            save(model_or_path, path, quantizer, base=base)
            return describe(path, batches, model_or_path, objective=objective, base=base)
    check_batches(batches, once=True)
    batches = iter(batches)
    first = next(batches, None)
    with Reader(model_or_path) as reader:
        reader.check_limit(reader.entries)
        if first is not None:
            if into is None:
                raise ValueError("describe: to code data with a file's network, pass a model as into=")
            decoded = load(model_or_path, copied(into), base=base)
            return describe_decoded(reader, decoded, itertools.chain([first], batches), objective)
        # References first: they check that a difference has its parent's shape.
        references = _references(reader, decode_each(reader, _stored(reader), base))
        return Ledger(tuple(_model_rows(reader)), references)


def describe_decoded(
    reader: Reader, decoded: nn.Module, batches: Iterable[Any], objective: Objective = DEFAULT_OBJECTIVE
) -> Ledger:
    """The ledger of an open file and of the targets of `batches`, given the network that it decodes to."""
    state = unwrap(decoded).state_dict()
    references = _references(reader, (state[name] for name in _stored(reader)))
    code = evaluate(decoded, batches, objective)
    of_data = LedgerRow("", "targets given the network", code.bits, measured=False, of_data=True)
    return Ledger((*_model_rows(reader), of_data), references, code.n_examples)


def _model_rows(reader: Reader) -> Iterator[LedgerRow]:
    whole = {"file header": reader.n_header_bytes, "plan": reader.n_plan_bytes, "parent": reader.n_parent_bytes}
    yield from (LedgerRow("", part, 8 * n_bytes) for part, n_bytes in whole.items() if n_bytes)
    for name, entry in reader.entries.items():
        yield LedgerRow(name, "directory", 8 * entry.n_entry_bytes)
        if entry.tied_to is None:
            for part, n_bytes in tensor_parts(entry.spec, reader.chunk(entry)).items():
                if n_bytes:
                    yield LedgerRow(name, part, 8 * n_bytes)


def _stored(reader: Reader) -> list[str]:
    return [name for name, entry in reader.entries.items() if entry.tied_to is None]


def _references(reader: Reader, decoded: Iterable[Tensor]) -> dict[str, float]:
    """Bits that simpler accounts charge for a file's untied tensors, which decode to `decoded`."""
    nonzero = sum(n_nonzero(tensor) for tensor in decoded if tensor.is_floating_point())
    n_elements = sum(reader.entries[name].spec.numel for name in _stored(reader))
    return {DENSE: 32.0 * n_elements, BIT_EACH: float(nonzero)}
