"""The one call: a network, data and a target give the shortest file that meets it.

The network is observed on the data, and rounded by bits against each layer's output error (`RateLoss`) at a
price, pruning being its zero. If it may be fine-tuned, a rounded one is trained under the code at ever lower
prices (`Shorten`), each training beginning where the one at the next higher price ended. The prices are
searched for. Every attempt is a file that was written, decoded and judged. Two need no search: the network as
it was, so that what it meets is always met, and grids that it is on are kept; and all zeros.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from laconic.atomic import atomic
from laconic.description.data_code import evaluate as evaluated
from laconic.errors import MismatchError, UnsupportedError
from laconic.evidence import Evidence, Statistic, observe
from laconic.file.container import Reader
from laconic.file.parent import state_digest
from laconic.file.state import load, save
from laconic.printing import as_text
from laconic.quantization.grid import Grid, Quantizer, Settled
from laconic.quantization.rate import RateLoss
from laconic.surgery.channels import channels
from laconic.surgery.plan import Plan
from laconic.surgery.shrink import shrink
from laconic.surgery.unread import unread
from laconic.targets import Attempt, How, Search, Shortest, Target
from laconic.tensors import tensors, unwrap
from laconic.training.loop import Training, train
from laconic.training.shorten import Shorten

if TYPE_CHECKING:
    from rich.table import Table

Batches = Iterable[tuple[Tensor, Tensor]]
Judge = Callable[[nn.Module], float]
ROUNDING, TRAINING = 1.1, 1.5  # prices as close as this are one: a training costs much more than a rounding
FIRST_OF_TRAINING = 16.0
STEPS_LR = 1e-2
_ENDS: tuple[tuple[float, How], ...] = ((math.inf, "as it was"), (0.0, "all zeros"))
SETTLED = Settled(Grid(0.005))  # the grids are for running statistics, which are not trained


def _silent(attempt: Attempt) -> None:
    del attempt


@dataclass(frozen=True)
class Compressed:
    """What became of a network.

    Attributes:
        path: the file.
        chosen: its attempt: price, length, score.
        dense_bytes: of the network's state.
        score: the network's own.
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
        """By how much the decoded file misses the target; 0 where it meets it."""
        return max(0.0, self.target.misses(self.chosen, self.score))

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        from rich.table import Table

        verdict = f"misses {self.target} by {self.misses:g}" if self.misses else f"meets {self.target}"
        table = Table(title=f"{self.path.name}: {verdict}")
        for label in ("", "bytes", "times smaller", "score", "drop"):
            table.add_column(label, justify="right" if label else "left")
        for attempt in sorted(self.attempts, key=lambda attempt: (attempt.how, attempt.price)):
            smaller, drop = self.dense_bytes / attempt.n_bytes, self.score - attempt.score
            row = (
                attempt.label,
                f"{attempt.n_bytes:,}",
                f"{smaller:.1f}",
                f"{attempt.score:.4f}",
                f"{drop:.4f}",
            )
            table.add_row(*row, style="bold" if attempt == self.chosen else None)
        return table


def compress(
    model: nn.Module,
    data: Batches,
    path: str | os.PathLike[str],
    target: Target | None = None,
    evaluate: Judge | None = None,
    finetune: Training | None = None,
    on_attempt: Callable[[Attempt], object] = _silent,
) -> Compressed:
    """Write the shortest file that meets `target`, judged by the network that it decodes to.

    Args:
        model: a trained network; it is not changed.
        data: batches (inputs, targets), iterated many times: a list or a loader. Without fine-tuning targets
            are looked at only by `Shortest` and by the default of `evaluate`.
        path: the file to write. What was tried is kept beside it, in its name with ``.attempts``, until it is
            there: after an interruption the same call goes on.
        target: `Shortest()`, by default; `MaxDrop` or `MaxBytes`.
        evaluate: a network's score, the higher the better; by default its accuracy on `data`.
        finetune: how to train under the code, at each price that is tried; its loss may be a `Distillation`
            from the network itself. Neurons and channels that nothing reads then are cut.
        on_attempt: called with each attempt.

    Returns:
        The file's account. Where no attempt met the target it tells by how much the best one missed it.

    Raises:
        ValueError: the network itself has no finite score.
        MismatchError: what is kept beside the file is another network's or target's.
        UnsupportedError: a layer's inputs cannot be observed.
    """
    target = target or Shortest()
    kept = _Kept(Path(f"{os.fspath(path)}.attempts"), _key(model, target, finetune))
    work = _Work(model, data, evaluate, target)
    score, _ = work.judged(copy.deepcopy(model).eval())
    if not math.isfinite(score):
        raise ValueError(f"evaluate: expected a finite score of the network itself, found {score}")
    attempts = kept.attempts()

    def tried(price: float, write: Callable[[float, Path], None], how: How) -> None:
        written = kept.file(price, how)
        write(price, written)
        attempts.append(work.tried(price, written, how))
        kept.write(attempts)
        on_attempt(attempts[-1])

    def searched(search: Search, write: Callable[[float, Path], None], how: How) -> None:
        while (price := target.next_price([t for t in attempts if t.how == how], score, search)) is not None:
            tried(price, write, how)

    for price, how in _ENDS[len(attempts) :]:
        tried(price, work.end, how)
    searched(work.search(), work.round, "rounded")
    if finetune is not None:
        first = target.to_train([t for t in attempts if t.how != "trained"], score)

        def tune(price: float, written: Path) -> None:
            above = min(
                (t for t in attempts if t.how == "trained" and t.price > price), key=_price, default=first
            )
            work.train(price, finetune, kept.file(above.price, above.how), written)

        searched(Search(FIRST_OF_TRAINING, TRAINING), tune, "trained")
    chosen = target.best(attempts, score)
    with atomic(path) as file:
        file.write(kept.file(chosen.price, chosen.how).read_bytes())
    kept.remove()
    return Compressed(Path(path), chosen, _n_bytes(model), score, target, tuple(attempts))


@dataclass(frozen=True)
class _Work:
    """What the attempts of one network share."""

    model: nn.Module
    data: Batches
    evaluate: Judge | None
    target: Target

    @cached_property
    def evidence(self) -> Evidence:
        return observe(self.model, self.data, [Statistic.GRAM])

    def search(self) -> Search:
        """From a relative error of about a tenth; see `RateLoss.price`."""
        sizes = [weight.numel() for weight in tensors(self.model).values()]
        return Search(70.0 * max(sizes, default=1), ROUNDING)

    def end(self, price: float, written: Path) -> None:
        """The network exactly, at an infinite price, or with zeros for all its floats."""
        network = copy.deepcopy(self.model)
        if price == 0:
            for tensor in network.state_dict().values():
                if tensor.is_floating_point():
                    tensor.zero_()
        _save(network, written, Plan(), None)

    def round(self, price: float, written: Path) -> None:
        """All floats, the norms' included, at a price of their layers' output errors."""
        _save(self.model, written, Plan(), RateLoss(price, evidence=self.evidence))

    def train(self, price: float, training: Training, begin: Path, written: Path) -> None:
        """Train what the file `begin` holds under the code at `price`."""
        with Reader(begin) as reader:
            plan = reader.plan or Plan()
        model = load(begin, into=copy.deepcopy(self.model))
        n_cases = sum(len(targets) for _, targets in self.data)
        every = 100
        if isinstance(self.data, Sized):  # twenty times at least
            every = max(1, min(every, training.epochs * len(self.data) // 20))
        rule = Shorten(price=price, n_cases=n_cases, every=every, lr=STEPS_LR, among=parameters)
        train(model, self.data, training, [rule])
        _save_cut(model.cpu().eval(), plan, next(iter(self.data))[0], written)

    def tried(self, price: float, file: Path, how: How) -> Attempt:
        """The file, decoded and judged."""
        score, bits = self.judged(load(file, into=copy.deepcopy(self.model)).eval())
        return Attempt(price, file.stat().st_size, score, bits, how)

    def judged(self, network: nn.Module) -> tuple[float, float]:
        """A network's score, and the bits of the data's labels where the target asks for them.

        No number is the lowest score: so a constant network's correlation with anything may be.
        """
        in_bits = isinstance(self.target, Shortest)
        if self.evaluate is not None and not in_bits:
            return _number(self.evaluate(network)), 0.0
        code = evaluated(network, self.data)
        score = code.accuracy if self.evaluate is None else _number(self.evaluate(network))
        return score, code.bits if in_bits else 0.0


def _number(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _save_cut(model: nn.Module, plan: Plan, inputs: Tensor, path: Path) -> None:
    """Write a network that `plan` has left, without what nothing reads where that makes the file shorter."""
    _save(model, path, plan)
    try:
        more = unread(channels(model, inputs), model)
        cut = shrink(model, more, inputs=inputs)
    except UnsupportedError:  # cutting is an extra
        return
    other = path.with_suffix(".cut")
    if more and _save(cut, other, plan.then(more)) < path.stat().st_size:
        other.replace(path)
    other.unlink(missing_ok=True)


def _save(model: nn.Module, path: Path, plan: Plan, quantizer: Quantizer | None = SETTLED) -> int:
    state = unwrap(model).state_dict()
    floats = [name for name, tensor in state.items() if tensor.is_floating_point()]
    return save(state, path, quantizer, include=floats, plan=plan or None)


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All that are trained, by name."""
    return {name: p for name, p in unwrap(model).named_parameters() if p.requires_grad}


def _price(attempt: Attempt) -> float:
    return attempt.price


@dataclass(frozen=True)
class _Kept:
    """The attempts so far, in a folder: a file for each, and what they are of."""

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
        return [Attempt(**attempt) for attempt in kept["attempts"]]

    def write(self, attempts: Sequence[Attempt]) -> None:
        kept = {"of": self.key, "attempts": [asdict(attempt) for attempt in attempts]}
        with atomic(self._list) as file:
            file.write(json.dumps(kept, indent=2).encode())

    def file(self, price: float, how: How) -> Path:
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
