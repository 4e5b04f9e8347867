"""The one call: a network, data and a target give the shortest file that meets it.

The network is observed on the data and rounded by bits against each layer's output error (`RateLoss`) at a price;
pruning is rounding to zero. If fine-tuning is allowed, a rounded network is trained under the code at lower and lower
prices (`CodeLengthRule`); each training begins where the one at the next higher price ended. The prices are searched
for. Every attempt is a file that was written, decoded and judged. Two need no search: the network as it was, so that a
target which it meets is always met, and all zeros.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from laconic.core.atomic import atomic
from laconic.core.text import as_text
from laconic.datasets.adapter import Data, TrainTest
from laconic.datasets.standard import Dataset
from laconic.errors import UnsupportedError, check_type
from laconic.file.container import Reader
from laconic.file.save_load import load, save
from laconic.model.evidence import Evidence, Statistic, observe
from laconic.model.modules import copied, n_examples, state_digest, unwrap
from laconic.model.objective import DEFAULT_OBJECTIVE, Batches, Objective, check_batches, is_pair, n_batches, split
from laconic.model.selectors import compressible
from laconic.quantization.grid import Grid, KeepGrid, Quantizer
from laconic.quantization.rate import RateLoss, price_at
from laconic.search.judging import Judge, Score, too_few
from laconic.search.kept import Kept, data_identity
from laconic.search.targets import Attempt, How, MaxDrop, Search, Shortest, Target
from laconic.search.under_code import CodeLengthRule
from laconic.surgery.channels import find_channels
from laconic.surgery.plan import Plan, dead_channels
from laconic.surgery.shrink import shrink
from laconic.training.loop import Training, train

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_TARGET = MaxDrop(0.01)
ENDS: tuple[tuple[How, float], ...] = (("as it was", math.inf), ("all zeros", 0.0))
MIN_ROUNDING_RATIO, MIN_TRAINING_RATIO = 1.1, 1.5  # of neighbouring prices: training costs much more
BATCH_SIZE, JUDGED_AT_ONCE = 64, 500  # examples, of data that come without batches
FIRST_ERROR = 0.1  # relative, of the largest layer
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
        judged_by: who gave the scores, in words.
        warnings: what may make the scores of new examples differ.
    """

    path: Path
    chosen: Attempt
    dense_bytes: int
    score: float
    target: Target
    attempts: tuple[Attempt, ...]
    judged_by: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def misses(self) -> float:
        """By how much the decoded file misses the target; 0 if it meets it."""
        return max(0.0, self.target.misses(self.chosen.measured, self.score))

    def __repr__(self) -> str:
        best = self.chosen.measured
        return f"Compressed({self.path}: {best.n_bytes:,.0f} of {self.dense_bytes:,} bytes, score {best.score:.4f})"

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        verdict = f"misses the target by {self.misses:g}" if self.misses else "meets the target"
        notes = [f"Judged by {self.judged_by}", *self.warnings, "Price: bits of file that a unit of loss is worth"]
        title = f"{self.path.name}: {verdict}: {self.target.label}"
        table = Table(
            title=title,
            caption="\n".join(f"{note}." for note in notes),
            caption_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
        )
        known = not math.isnan(self.chosen.measured.score_error)
        bound = self.target if isinstance(self.target, MaxDrop) and known else None
        headings = ["price", "bytes", "smaller", "score", "drop", *([f"{bound.confidence:.0%} bound"] if bound else [])]
        table.add_column("")
        table.add_column("")
        for label in headings:
            table.add_column(label, justify="right", no_wrap=True)
        for attempt in sorted(self.attempts, key=lambda attempt: attempt.measured.n_bytes):
            chosen, measured = attempt == self.chosen, attempt.measured
            row = ["→" if chosen else "", attempt.how, f"{attempt.price:.4g}" if 0 < attempt.price < math.inf else ""]
            row += [f"{measured.n_bytes:,.0f}", f"{self.dense_bytes / measured.n_bytes:.1f}×", f"{measured.score:.4f}"]
            row.append(f"{self.score - measured.score:.4f}")
            if bound:
                row.append(f"{bound.largest_drop(measured, self.score):.4f}")
            table.add_row(*row, style="bold" if chosen else None)
        return table


def compress(  # noqa: PLR0913 – a public call
    model: nn.Module,
    data: Batches | Data,
    path: str | os.PathLike[str],
    target: Target = DEFAULT_TARGET,
    evaluate: Score | Batches | None = None,
    finetune: Training | None = None,
    on_attempt: Callable[[Attempt], object] | None = None,
    *,
    objective: Objective = DEFAULT_OBJECTIVE,
    minimize: bool = False,
    keep: str | os.PathLike[str] | None = None,
) -> Compressed:
    """Write the shortest file that meets `target`, judged by the network that it decodes to.

    Args:
        model: a trained network; it is not changed.
        data: batches, see `laconic.model.Objective`; iterated many times: a list or a loader. Without fine-tuning,
            targets are read only by `Shortest` and by the default of `evaluate`. Of a `Dataset`, or a pair (training,
            test) of batches, the test part judges.
        path: the file to write. Until it is complete, the folder ``path.attempts``, or `keep`, keeps the attempts:
            after an interruption the same call continues.
        target: `MaxDrop`, `MaxBytes` or `Shortest`; by default a drop of at most 0.01.
        evaluate: what judges: batches of examples that are held out, or a function from a network to its score, the
            higher the better. By default `data` judge, which is said. On examples the score is the accuracy; where the
            task is no classification, minus the mean loss.
        finetune: how to train under the code, at each price that is tried; its objective may be a `Distillation` from
            the network itself. Channels that become dead are cut.
        on_attempt: called with each attempt that is made, not with those that were kept.
        objective: what the targets are, or the loss in nats; by default what the first batch shows.
        minimize: whether lower scores of `evaluate` are better.
        keep: a folder that keeps observation and attempts for the next target of the same network on the same data.

    Returns:
        The file and its attempts. If no attempt met the target, `misses` is by how much the best one missed it.

    Raises:
        ValueError: the network itself has no finite score, or the target is no `Target` or cannot be missed.
        MismatchError: the folder holds attempts at another network or data; or batches or what judges do not fit.
        UnsupportedError: the network cannot be copied.
    """
    check_type("model", model, nn.Module)
    check_type("target", target, Target, "MaxDrop(0.01)")
    if finetune is not None:
        check_type("finetune", finetune, Training, "Training(5)")
    data, examples, name = _parts(data)
    score, held_out = (evaluate, None) if callable(evaluate) else (None, evaluate)
    if held_out is not None:
        check_batches(held_out, "evaluate")
        examples, name = held_out, "examples of `evaluate`"
    judge = Judge(examples, objective, score, minimize, isinstance(target, Shortest), name)
    network = copied(model).eval()
    judge.settle(network)
    own = judge(network)
    _check_score(own.score, target, minimize)
    of = f"network {state_digest(model.state_dict())[:16]}, {data_identity(data)}"
    kept = Kept(Path(keep or f"{os.fspath(path)}.attempts"), of, judge.identity(own))
    job = _Job(model, data, target, judge, finetune, kept, own.score)
    for how, price in job.untried():
        made = job.attempt(how, price)
        if made and on_attempt:
            on_attempt(made)
    attempts = tuple(job.files)
    chosen = target.best(attempts, own.score)
    with atomic(path) as file:
        file.write(job.files[chosen].read_bytes())
    if keep is None:
        kept.remove()
    held = {id(tensor): tensor.nbytes for tensor in unwrap(model).state_dict(keep_vars=True).values()}  # tied ones once
    warnings = [too_few(judge.original, [attempt.measured for attempt in attempts], target)]
    if judge.score is None and judge.examples is data:
        warnings.append(f"The network was {'trained' if finetune else 'observed'} on them: new ones may score less")
    said = tuple(filter(None, warnings))
    return Compressed(Path(path), chosen, sum(held.values()), own.score, target, attempts, judge.label, said)


def _parts(data: Batches | Data) -> tuple[Batches, Batches, str]:
    """The batches to observe and train on, those to judge by unless others are given, and what these are."""
    if not isinstance(data, Dataset) and not is_pair(data):
        check_batches(data, "data")
        return cast(Batches, data), cast(Batches, data), "examples of the data"
    both = TrainTest.of(data if isinstance(data, Dataset) else cast(Data, tuple(data)))
    return both.train.batches(BATCH_SIZE, shuffle=True), both.test.batches(JUDGED_AT_ONCE), "test examples"


def _check_score(score: float, target: Target, minimize: bool) -> None:
    """Refuse what no file can be compared with, and a drop that every file meets."""
    if not math.isfinite(score):
        found = "NaN, or −inf" if score == -math.inf else score
        raise ValueError(f"evaluate: expected a finite score of the network itself, found {found}")
    if isinstance(target, MaxDrop) and target.drop >= 1 and 0 <= score <= 1 and not minimize:
        hint = "a hundredth is MaxDrop(0.01)"
        raise ValueError(f"drop: expected below 1 for a score within [0, 1], found {target.drop:g}; {hint}")


@dataclass
class _Job:
    """The attempts of one search, and their files."""

    model: nn.Module
    data: Batches
    target: Target
    judge: Judge
    finetune: Training | None
    kept: Kept
    score: float
    files: dict[Attempt, Path] = field(default_factory=dict)

    def untried(self) -> Iterable[tuple[How, float]]:
        """What to try next, until the search is over."""
        yield from ENDS
        if self.target.hopeless(list(self.files), self.score):
            return
        largest = max((weight.numel() for weight in compressible(self.model).values()), default=1)
        searches: dict[How, Search] = {"rounded": Search(price_at(FIRST_ERROR**2, largest), MIN_ROUNDING_RATIO)}
        if self.finetune:
            searches["trained"] = Search(FIRST_TRAINING_PRICE, MIN_TRAINING_RATIO)
        for how, search in searches.items():
            while (price := self.target.next_price(self._by(how), self.score, search)) is not None:
                yield how, price

    def attempt(self, how: How, price: float) -> Attempt | None:
        """Write a file, decode it, judge it, and keep it, as far as that is not kept already; None if all of it is."""
        begin = self._begin(price) if how == "trained" else None
        path = self.kept.file(how, price, self.finetune, begin)
        measured = self.kept.measured(path)
        if measured is not None:
            self.files[Attempt(price, how, measured)] = path
            return None
        if not path.exists():
            draft = path.with_suffix(".part")
            self._write(draft, how, price, begin)
            draft.replace(path)
        measured = replace(self.judge(load(path, into=copied(self.model)).eval()), n_bytes=path.stat().st_size)
        self.kept.add(path, measured)
        attempt = Attempt(price, how, measured)
        self.files[attempt] = path
        return attempt

    def _write(self, path: Path, how: How, price: float, begin: Path | None) -> None:
        if begin:
            self._train(price, begin, path)
        elif how == "rounded":  # all floats, the norms' included, at a price of their layers' output errors
            _save(self.model, path, Plan(), RateLoss(price, evidence=self._evidence))
        else:  # the network exactly, at an infinite price, or with zeros for all its floats
            network = copied(self.model)
            for tensor in network.state_dict().values() if price == 0 else ():
                if tensor.is_floating_point():
                    tensor.zero_()
            _save(network, path, Plan(), None)

    def _by(self, how: How) -> list[Attempt]:
        return [attempt for attempt in self.files if attempt.how == how]

    @cached_property
    def _evidence(self) -> Evidence:
        return self.kept.evidence(lambda: observe(self.model, self.data, [Statistic.GRAM], self.judge.objective))

    def _begin(self, price: float) -> Path:
        """The file that training begins from: where training at the next higher price ended."""
        above = [attempt for attempt in self._by("trained") if attempt.price > price]
        untrained = [attempt for attempt in self.files if attempt.how != "trained"]
        return self.files[min(above, key=lambda a: a.price) if above else self.target.to_train(untrained, self.score)]

    def _train(self, price: float, begin: Path, path: Path) -> None:
        """Train under the code."""
        assert self.finetune is not None
        with Reader(begin) as reader:
            plan = reader.plan or Plan()
        model = load(begin, into=copied(self.model))
        every = 100
        if a_pass := n_batches(self.data):  # prices are updated at least twenty times
            every = max(1, min(every, self.finetune.epochs * a_pass // 20))
        n = sum(n_examples(batch) or 0 for batch in self.data)

        def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
            return {name: p for name, p in unwrap(network).named_parameters() if p.requires_grad}

        rule = CodeLengthRule(price=price, n_examples=n, every=every, lr=SCALES_LR, parameters=trainable)
        train(model, self.data, self.finetune, [rule])
        inputs, _ = split(next(iter(self.data)), model, must=False)
        _save_cut(model.cpu().eval(), plan, inputs, path)


def _save_cut(model: nn.Module, plan: Plan, inputs: Any, path: Path) -> None:
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
