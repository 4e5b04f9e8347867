"""`describe`: the description length of a network, measured on a file that decodes."""

from __future__ import annotations

import copy
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor, nn

from laconic import codec
from laconic.description.data_code import CLASS_LABELS, Nats, evaluate
from laconic.description.ledger import BIT_EACH, DENSE, Ledger, LedgerRow
from laconic.file.container import Reader
from laconic.file.parent import State
from laconic.file.state import DEFAULT, decode_each, load, save
from laconic.quantization.grid import Quantizer
from laconic.tensors import n_nonzero


def describe(
    model_or_path: nn.Module | str | os.PathLike[str],
    batches: Iterable[tuple[Tensor, Tensor]] = (),
    into: nn.Module | None = None,
    quantizer: Quantizer | None = DEFAULT,
    nats: Nats = CLASS_LABELS,
    base: State | None = None,
) -> Ledger:
    """Count the bits of a network and of the data given it.

    A model is first saved to a temporary file: its bits are that file's, by tensor and part, and the data's
    are those of the network decoded from it. Two references stand beside them: every number of the state as
    float32, and one bit for each parameter that is not zero, a common simplification.

    Args:
        model_or_path: a model, or a `.lac` file.
        batches: pairs (inputs, targets) whose targets the network codes; none for the model's bits alone.
        into: for a file with batches, a model of its architecture, dense if the file has a plan; it is not
            changed.
        quantizer: for a model, how it is saved.
        nats: Σ −ln p from outputs and targets; by default class labels.
        base: the parent to code differences from, or that the file's are from; its own bits are not counted.

    Raises:
        ValueError: batches are given for a file without a model to decode it into.
        FormatError: the file is damaged.
    """
    if isinstance(model_or_path, nn.Module):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.lac"
            save(model_or_path, path, quantizer, base=base)
            return describe(path, batches, model_or_path, nats=nats, base=base)
    batches = iter(batches)
    first = next(batches, None)
    with Reader(model_or_path) as reader:
        reader.check_limit(reader.entries)
        # References first: a difference's shape is believed once it is found to be its parent's.
        references = _references(reader, base)
        rows = list(_model_rows(reader))
    if first is None:
        return Ledger(tuple(rows), references)
    if into is None:
        raise ValueError("describe: to code data with a file's network, pass a model as into=")
    decoded = load(model_or_path, copy.deepcopy(into), base=base)
    code = evaluate(decoded, itertools.chain([first], batches), nats)
    rows.append(LedgerRow("", "targets given the network", code.bits, measured=False, of_data=True))
    return Ledger(tuple(rows), references, code.n_cases)


def _model_rows(reader: Reader) -> Iterator[LedgerRow]:
    yield LedgerRow("", "file header", 8 * reader.n_header_bytes)
    if reader.n_plan_bytes:
        yield LedgerRow("", "plan", 8 * reader.n_plan_bytes)
    if reader.n_parent_bytes:
        yield LedgerRow("", "parent", 8 * reader.n_parent_bytes)
    for name, entry in reader.entries.items():
        yield LedgerRow(name, "directory", 8 * entry.n_entry_bytes)
        if entry.tied_to is None:
            for part, n_bytes in codec.parts(entry.form, reader.chunk(entry)).items():
                if n_bytes:
                    yield LedgerRow(name, part, 8 * n_bytes)


def _references(reader: Reader, base: State | None) -> dict[str, float]:
    stored = {name: entry.form for name, entry in reader.entries.items() if entry.tied_to is None}
    decoded = decode_each(reader, stored, base)
    nonzero = sum(n_nonzero(tensor) for tensor in decoded if tensor.is_floating_point())
    return {DENSE: 32.0 * sum(form.numel for form in stored.values()), BIT_EACH: float(nonzero)}
