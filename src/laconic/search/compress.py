"""The one call: a network, data and a target give the shortest file that meets it.

The network is observed on the data and rounded by bits against each layer's output error (`RateLoss`) at a price;
pruning is rounding to zero. If fine-tuning is allowed, a rounded network is trained under the code at lower and lower
prices (`CodeLengthRule`); each training begins where the one at the next higher price ended. The prices are searched
for. Every attempt is a file that was written, decoded and judged. Two need no search: the network as it was, so that a
target which it meets is always met, and all zeros.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from laconic.core.atomic import atomic
from laconic.core.text import as_text
from laconic.description.describe import evaluate as data_code
from laconic.description.ledger import Measurement
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
from laconic.surgery.plan import Plan, dead_channels
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


@dataclass(frozen=True)
class Compressed:
    """The result of `compress`.

    Attributes:
        path: the file.
        chosen: the attempt in the file: price, length, score.
        dense_bytes: length of the network's state.
        score: the network's own score.
        target: what was asked for.
        attempts: all attempts, in order.
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
    on_attempt: Callable[[Attempt], object] | None = None,
) -> Compressed:
    """Write the shortest file that meets `target`, judged by the network that it decodes to.

    Args:
        model: a trained network; it is not changed.
        data: batches (inputs, targets), iterated many times: a list or a loader. Without fine-tuning, targets are read
            only by `Shortest` and by the default of `evaluate`.
        path: the file to write. Until it is complete, the folder ``path.attempts`` keeps the attempts: after an
            interruption the same call continues.
        target: `MaxDrop`, `MaxBytes` or `Shortest`; by default a drop of at most 0.01.
        evaluate: a network's score, the higher the better; by default its accuracy on `data`.
        finetune: how to train under the code, at each price that is tried; its loss may be a `Distillation` from the
            network itself. Channels that become dead are cut.
        on_attempt: called with each attempt.

    Returns:
        The file and its attempts. If no attempt met the target, `misses` is by how much the best one missed it.

    Raises:
        ValueError: the network itself has no finite score.
        MismatchError: the folder holds attempts at another network or target.
        UnsupportedError: a layer's inputs cannot be observed.
    """
    job = _Job(model, data, target, evaluate, finetune, Path(f"{os.fspath(path)}.attempts"))
    job.score = job.judge(copy.deepcopy(model).eval()).score
    if not math.isfinite(job.score):
        raise ValueError(f"evaluate: expected a finite score of the network itself, found {job.score}")
    job.resume()
    for how, price in job.untried():
        attempt = job.attempt(how, price)
        if on_attempt:
            on_attempt(attempt)
    chosen = target.best(job.attempts, job.score)
    with atomic(path) as file:
        file.write(job.file(chosen.how, chosen.price).read_bytes())
    shutil.rmtree(job.folder)
    held = {id(tensor): tensor.nbytes for tensor in unwrap(model).state_dict(keep_vars=True).values()}  # tied ones once
    return Compressed(Path(path), chosen, sum(held.values()), job.score, target, tuple(job.attempts))


@dataclass
class _Job:
    """The attempts at one network, kept in a folder: a file for each, and a list."""

    model: nn.Module
    data: Batches
    target: Target
    evaluate: Judge | None
    finetune: Training | None
    folder: Path
    score: float = math.nan
    attempts: list[Attempt] = field(default_factory=list)

    @cached_property
    def _key(self) -> str:
        """What attempts depend on, as far as it is known."""
        how = f"trained {self.finetune.epochs} epochs, seed {self.finetune.seed}" if self.finetune else "rounded"
        bits = "with data bits" if isinstance(self.target, Shortest) else "without"
        return f"{state_digest(self.model.state_dict())}, {how}, {bits}"

    def file(self, how: How, price: float) -> Path:
        return self.folder / f"{how}-{price!r}.lac"

    def resume(self) -> None:
        """Read the attempts that the folder has."""
        self.folder.mkdir(exist_ok=True)
        if (path := self.folder / "attempts.json").exists():
            kept = json.loads(path.read_text())
            if kept["of"] != self._key:
                found = "expected attempts of this network, found another's; remove it to start anew"
                raise MismatchError(f"{self.folder}: {found}")
            for a in kept["attempts"]:
                self.attempts.append(Attempt(a["price"], a["how"], Measurement.from_dict(a["measured"])))

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
        path = self.file(how, price)
        match how:
            case "trained":
                self._train(price, path)
            case "rounded":  # all floats, the norms' included, at a price of their layers' output errors
                _save(self.model, path, Plan(), RateLoss(price, evidence=self._evidence))
            case _:  # the network exactly, at an infinite price, or with zeros for all its floats
                network = copy.deepcopy(self.model)
                for tensor in network.state_dict().values() if price == 0 else ():
                    if tensor.is_floating_point():
                        tensor.zero_()
                _save(network, path, Plan(), None)
        measured = self.judge(load(path, into=copy.deepcopy(self.model)).eval(), path.stat().st_size)
        self.attempts.append(Attempt(price, how, measured))
        listed = [{**vars(attempt), "measured": attempt.measured.to_dict()} for attempt in self.attempts]
        with atomic(self.folder / "attempts.json") as file:
            file.write(json.dumps({"of": self._key, "attempts": listed}, indent=2).encode())
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

    def _train(self, price: float, path: Path) -> None:
        """Train under the code, from where training at the next higher price ended."""
        assert self.finetune is not None
        above = [attempt for attempt in self._by("trained") if attempt.price > price]
        untrained = [attempt for attempt in self.attempts if attempt.how != "trained"]
        start = min(above, key=lambda a: a.price) if above else self.target.to_train(untrained, self.score)
        begin = self.file(start.how, start.price)
        with Reader(begin) as reader:
            plan = reader.plan or Plan()
        model = load(begin, into=copy.deepcopy(self.model))
        every = 100
        if isinstance(self.data, Sized):  # prices are updated at least twenty times
            every = max(1, min(every, self.finetune.epochs * len(self.data) // 20))
        n = sum(len(targets) for _, targets in self.data)

        def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
            return {name: p for name, p in unwrap(network).named_parameters() if p.requires_grad}

        rule = CodeLengthRule(price=price, n_examples=n, every=every, lr=SCALES_LR, parameters=trainable)
        train(model, self.data, self.finetune, [rule])
        _save_cut(model.cpu().eval(), plan, next(iter(self.data))[0], path)


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
