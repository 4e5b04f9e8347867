"""The one call: a network, data and a target give the shortest file that meets it.

The network is observed on the data and rounded by bits against each layer's output error (`RateLoss`) at a
price; pruning is rounding to zero. If it may be fine-tuned, a rounded network is trained under the code at
ever lower prices (`CodeLengthRule`), each training beginning where the one at the next higher price ended. The
prices are searched for. Every attempt is a file that was written, decoded and judged. Two need no search: the
network as it was, so that a target which it meets is always met; and all zeros.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from laconic.core.atomic import atomic
from laconic.core.text import as_text
from laconic.description.evaluate import evaluate as data_code
from laconic.description.measurement import Measurement
from laconic.errors import MismatchError, UnsupportedError
from laconic.file.container import Reader
from laconic.file.save_load import load, save
from laconic.model.evidence import Evidence, Statistic, observe
from laconic.model.modules import state_digest, unwrap
from laconic.model.selectors import compressible
from laconic.quantization.grid import Grid, KeepGrid, Quantizer
from laconic.quantization.rate import RateLoss
from laconic.search.targets import Attempt, How, MaxDrop, Search, Shortest, Target
from laconic.search.under_code import CodeLengthRule
from laconic.surgery.channels import find_channels
from laconic.surgery.dead import dead_channels
from laconic.surgery.plan import Plan
from laconic.surgery.shrink import shrink
from laconic.training.loop import Training, train

if TYPE_CHECKING:
    from rich.table import Table

Batches = Iterable[tuple[Tensor, Tensor]]
Judge = Callable[[nn.Module], float]
DEFAULT_TARGET = MaxDrop(0.01)
ENDS: tuple[tuple[How, float], ...] = (("as it was", math.inf), ("all zeros", 0.0))
MIN_ROUNDING_RATIO, MIN_TRAINING_RATIO = 1.1, 1.5  # of neighbouring prices: training costs much more
FIRST_PRICE_PER_WEIGHT = 70.0  # a relative error of about a tenth; see `RateLoss.price`
FIRST_TRAINING_PRICE = 16.0
SCALES_LR = 1e-2
KEEP_GRIDS = KeepGrid(Grid(0.005))  # the grid is for running statistics, which are not trained


def _ignore(attempt: Attempt) -> None:
    del attempt


@dataclass(frozen=True)
class Compressed:
    """What became of a network.

    Attributes:
        path: the file.
        chosen: its attempt: price, length, score.
        dense_bytes: length of the network's state.
        score: that of the network itself.
        target: what was asked for.
        attempts: all, in the order in which they were tried.
    """

    path: Path
    chosen: Attempt
    dense_bytes: int
    score: float
    target: Target
    attempts: tuple[Attempt, ...]

    @property
    def misses(self) -> float:
        """By how much the decoded file misses the target; 0 if it meets it."""
        return max(0.0, self.target.misses(self.chosen.measured, self.score))

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        from rich.table import Table

        verdict = f"misses {self.target} by {self.misses:g}" if self.misses else f"meets {self.target}"
        table = Table(title=f"{self.path.name}: {verdict}")
        for label in ("", "bytes", "times smaller", "score", "drop"):
            table.add_column(label, justify="right" if label else "left")
        for attempt in sorted(self.attempts, key=lambda attempt: (attempt.how, attempt.price)):
            n_bytes, score = attempt.measured.n_bytes, attempt.measured.score
            row = (f"{n_bytes:,.0f}", f"{self.dense_bytes / n_bytes:.1f}", f"{score:.4f}")
            style = "bold" if attempt == self.chosen else None
            table.add_row(attempt.label, *row, f"{self.score - score:.4f}", style=style)
        return table


def compress(  # noqa: PLR0913 – a public call
    model: nn.Module,
    data: Batches,
    path: str | os.PathLike[str],
    target: Target = DEFAULT_TARGET,
    evaluate: Judge | None = None,
    finetune: Training | None = None,
    on_attempt: Callable[[Attempt], object] = _ignore,
) -> Compressed:
    """Write the shortest file that meets `target`, judged by the network that it decodes to.

    Args:
        model: a trained network; it is not changed.
        data: batches (inputs, targets), iterated many times: a list or a loader. Without fine-tuning, targets
            are read only by `Shortest` and by the default of `evaluate`.
        path: the file to write. What was tried is kept beside it, in its name with ``.attempts``, until it is
            there: after an interruption the same call goes on.
        target: `MaxDrop`, `MaxBytes` or `Shortest`; by default at most a hundredth of the score less.
        evaluate: a network's score, the higher the better; by default its accuracy on `data`.
        finetune: how to train under the code, at each price that is tried; its loss may be a `Distillation`
            from the network itself. Channels that become dead are cut.
        on_attempt: called with each attempt.

    Returns:
        What became of the network. Where no attempt met the target, it says by how much the best missed it.

    Raises:
        ValueError: the network itself has no finite score.
        MismatchError: what is kept beside the file is another network's or target's.
        UnsupportedError: a layer's inputs cannot be observed.
    """
    kept = _Kept(Path(f"{os.fspath(path)}.attempts"), _key(model, target, finetune))
    job = _Job(model, data, target, evaluate, finetune, kept)
    score = job.judge(copy.deepcopy(model).eval()).score
    if not math.isfinite(score):
        raise ValueError(f"evaluate: expected a finite score of the network itself, found {score}")
    job.score = score
    job.attempts += kept.attempts()
    for how, price in job.untried():
        on_attempt(job.attempt(how, price))
    chosen = target.best(job.attempts, score)
    with atomic(path) as file:
        file.write(kept.file(chosen.how, chosen.price).read_bytes())
    kept.remove()
    return Compressed(Path(path), chosen, _n_bytes(model), score, target, tuple(job.attempts))


@dataclass
class _Job:
    """The attempts at one network, and how more of them are made."""

    model: nn.Module
    data: Batches
    target: Target
    evaluate: Judge | None
    finetune: Training | None
    kept: _Kept
    score: float = math.nan
    attempts: list[Attempt] = field(default_factory=list)

    def untried(self) -> Iterable[tuple[How, float]]:
        """What to try next, until the search is over."""
        yield from ENDS[len(self.attempts) :]
        largest = max((weight.numel() for weight in compressible(self.model).values()), default=1)
        searches: dict[How, Search] = {"rounded": Search(FIRST_PRICE_PER_WEIGHT * largest, MIN_ROUNDING_RATIO)}
        if self.finetune:
            searches["trained"] = Search(FIRST_TRAINING_PRICE, MIN_TRAINING_RATIO)
        for how, search in searches.items():
            while (price := self.target.next_price(self._by(how), self.score, search)) is not None:
                yield how, price

    def attempt(self, how: How, price: float) -> Attempt:
        """Write a file, decode it, judge it, and keep it."""
        path = self.kept.file(how, price)
        write = {"rounded": self._round, "trained": self._train}.get(how, self._write_end)
        write(price, path)
        measured = self.judge(load(path, into=copy.deepcopy(self.model)).eval(), path.stat().st_size)
        self.attempts.append(Attempt(price, how, measured))
        self.kept.write(self.attempts)
        return self.attempts[-1]

    def judge(self, network: nn.Module, n_bytes: float = math.nan) -> Measurement:
        """A network's score, and the bits of the data's labels where the target asks for them.

        NaN ranks below every score: the correlation of a constant output, for example, is undefined.
        """
        in_bits = isinstance(self.target, Shortest)
        code = data_code(network, self.data) if in_bits or self.evaluate is None else None
        score = float(self.evaluate(network) if self.evaluate else code.accuracy if code else math.nan)
        data_bits = code.bits if code and in_bits else math.nan
        score = -math.inf if math.isnan(score) else score
        return Measurement(n_bytes=n_bytes, score=score, data_bits=data_bits)

    def _by(self, how: How) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.how == how]

    @cached_property
    def _evidence(self) -> Evidence:
        return observe(self.model, self.data, [Statistic.GRAM])

    def _write_end(self, price: float, path: Path) -> None:
        """The network exactly, at an infinite price, or with zeros for all its floats."""
        network = copy.deepcopy(self.model)
        if price == 0:
            for tensor in network.state_dict().values():
                if tensor.is_floating_point():
                    tensor.zero_()
        _save(network, path, Plan(), None)

    def _round(self, price: float, path: Path) -> None:
        """All floats, the norms' included, at a price of their layers' output errors."""
        _save(self.model, path, Plan(), RateLoss(price, evidence=self._evidence))

    def _train(self, price: float, path: Path) -> None:
        """Train under the code, from where training at the next higher price ended."""
        assert self.finetune is not None
        above = [attempt for attempt in self._by("trained") if attempt.price > price]
        untrained = [attempt for attempt in self.attempts if attempt.how != "trained"]
        start = min(above, key=lambda attempt: attempt.price) if above else self._best_to_train(untrained)
        begin = self.kept.file(start.how, start.price)
        with Reader(begin) as reader:
            plan = reader.plan or Plan()
        model = load(begin, into=copy.deepcopy(self.model))
        every = 100
        if isinstance(self.data, Sized):  # prices are found anew twenty times at least
            every = max(1, min(every, self.finetune.epochs * len(self.data) // 20))
        rule = CodeLengthRule(
            price=price,
            n_examples=sum(len(targets) for _, targets in self.data),
            every=every,
            lr=SCALES_LR,
            parameters=trainable_parameters,
        )
        train(model, self.data, self.finetune, [rule])
        _save_cut(model.cpu().eval(), plan, next(iter(self.data))[0], path)

    def _best_to_train(self, attempts: Sequence[Attempt]) -> Attempt:
        return self.target.to_train(attempts, self.score)


def _save_cut(model: nn.Module, plan: Plan, inputs: Tensor, path: Path) -> None:
    """Write a network that `plan` has left, without its dead channels if that makes the file shorter."""
    _save(model, path, plan)
    try:
        more = dead_channels(find_channels(model, inputs), model)
        cut = shrink(model, more, inputs=inputs)
    except UnsupportedError:  # not every network can be traced
        return
    other = path.with_suffix(".cut")
    if more and _save(cut, other, plan.then(more)) < path.stat().st_size:
        other.replace(path)
    other.unlink(missing_ok=True)


def _save(model: nn.Module, path: Path, plan: Plan, quantizer: Quantizer | None = KEEP_GRIDS) -> int:
    state = unwrap(model).state_dict()
    floats = [name for name, tensor in state.items() if tensor.is_floating_point()]
    return save(state, path, quantizer, include=floats, plan=plan or None)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients, by name."""
    return {name: p for name, p in unwrap(model).named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class _Kept:
    """The attempts so far, in a folder: a file for each, and what they are attempts at."""

    folder: Path
    key: str

    def attempts(self) -> list[Attempt]:
        self.folder.mkdir(exist_ok=True)
        if not self._list.exists():
            return []
        kept = json.loads(self._list.read_text())
        if kept["of"] != self.key:
            raise MismatchError(
                f"{self.folder}: expected attempts of this network, found another's; remove it to start anew"
            )
        return [
            Attempt(found["price"], found["how"], Measurement.from_dict(found["measured"]))
            for found in kept["attempts"]
        ]

    def write(self, attempts: Sequence[Attempt]) -> None:
        listed = [{**vars(attempt), "measured": attempt.measured.to_dict()} for attempt in attempts]
        with atomic(self._list) as file:
            file.write(json.dumps({"of": self.key, "attempts": listed}, indent=2).encode())

    def file(self, how: How, price: float) -> Path:
        return self.folder / f"{how}-{price!r}.lac"

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def _list(self) -> Path:
        return self.folder / "attempts.json"


def _n_bytes(model: nn.Module) -> int:
    """Of the state as it is, tied tensors once."""
    held = {id(tensor): tensor.nbytes for tensor in unwrap(model).state_dict(keep_vars=True).values()}
    return sum(held.values())


def _key(model: nn.Module, target: Target, finetune: Training | None) -> str:
    """What attempts depend on, as far as it can be told."""
    training = f"trained {finetune.epochs} epochs, seed {finetune.seed}" if finetune else "rounded"
    bits = "with data bits" if isinstance(target, Shortest) else "without"
    return f"{state_digest(model.state_dict())}, {training}, {bits}"
