"""One plain training loop, on the devices that Accelerate finds.

Each epoch is seeded by (seed, epoch), so its batches come in the same order whenever it runs. A run that is interrupted
inside an epoch continues from its checkpoint with the same batches, and on a CPU ends with the same weights, bit for
bit, as one that was not.
"""

from __future__ import annotations

import inspect
import itertools
import math
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from laconic.core.text import kind
from laconic.errors import MismatchError, UnsupportedError, check_type
from laconic.model.objective import DEFAULT_OBJECTIVE, Answer, Batches, Objective, check_batches, n_batches
from laconic.model.selectors import sparsity
from laconic.training.checkpoint import load_state, save_state
from laconic.training.distillation import Distillation
from laconic.training.rules import Attached, Rule, attach

if TYPE_CHECKING:
    from rich.console import Console

ADAM = partial(torch.optim.Adam, lr=1e-3)
ACCELERATED = "_is_accelerate_prepared"  # by which Accelerate would take the model for its own in loops of the user's
STEPS_BETWEEN_COUNTS = 50  # of zeros, for the progress bar


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the batches.
        optimizer: a function from parameters to an optimizer.
        objective: what the targets are, or the loss in nats: see `laconic.model.Objective`; or a `Distillation`.
        scheduler: a function from the optimizer to a learning-rate scheduler. `ReduceLROnPlateau` gets the epoch's mean
            loss.
        per_step: whether the scheduler is stepped after each batch, rather than each epoch.
        seed: decides the order of batches and all randomness in the model.
    """

    epochs: int
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = ADAM
    objective: Objective | Distillation = DEFAULT_OBJECTIVE
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    seed: int = 0
    per_step: bool = False


@dataclass
class Progress:
    """The progress of a training; callbacks read it after every step.

    Attributes:
        epoch: the current epoch, from 0.
        batch: batches done in this epoch.
        step: batches done in all.
        n_steps: all batches of the training, if the loader has a length.
        history: mean loss of each finished epoch, and its accuracy where the task is a classification.
        rules: the rules at work.
    """

    model: nn.Module
    epoch: int = 0
    batch: int = 0
    step: int = 0
    n_steps: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    rules: Sequence[Attached] = ()
    _sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    @torch.no_grad()
    def count(self, answer: Answer) -> None:
        """Add a batch to the epoch's means."""
        n_right = answer.n_right
        n_labels = torch.as_tensor(answer.n_labels, device=answer.loss.device)
        batch = (answer.loss.detach() * n_labels, math.nan if n_right is None else n_right.sum(), n_labels)
        sums = [torch.as_tensor(value, dtype=torch.float64, device=n_labels.device) for value in batch]
        self._sums = self._sums.to(n_labels.device) + torch.stack(sums)
        self.batch, self.step = self.batch + 1, self.step + 1

    @contextmanager
    def deterministic(self) -> Generator[nn.Module]:
        """The model as training would leave it now: for callbacks that evaluate it where rules add noise."""
        with ExitStack() as stack:
            for attached in self.rules:
                stack.enter_context(attached.deterministic())
            yield self.model

    @property
    def loss(self) -> float:
        """Mean loss in this epoch so far."""
        return float(self._sums[0] / self._sums[2])

    @property
    def accuracy(self) -> float:
        """Fraction of this epoch's labels so far that were right; NaN where the task is no classification."""
        return float(self._sums[1] / self._sums[2])

    def end_epoch(self) -> None:
        """Move the epoch's means to the history."""
        means = {"loss": self.loss, "accuracy": self.accuracy}
        self.history.append({name: value for name, value in means.items() if name == "loss" or not math.isnan(value)})
        self.epoch, self.batch = self.epoch + 1, 0
        self._sums.zero_()


Callback: TypeAlias = Callable[[Progress], None]


def _check(model: nn.Module, batches: Batches, training: Training) -> None:
    """Refuse what is no model, no training or no batches, by its name."""
    check_type("model", model, nn.Module)
    check_type("training", training, Training, "Training(epochs)" if isinstance(training, int) else "")
    if training.epochs:
        check_batches(batches)


def train(
    model: nn.Module,
    batches: Batches,
    training: Training,
    rules: Sequence[Rule] = (),
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
) -> Progress:
    """Train `model` in place.

    Args:
        model: any module; its parameters that require gradients are trained. If it is in training mode, modules of it
            that are not, such as frozen batch norms, stay so; otherwise all modules are while they are trained. Modes
            and random states are as before at the end.
        batches: see `laconic.model.Objective`; iterated once an epoch: a DataLoader or a list.
        training: epochs, optimizer, objective, scheduler, seed.
        rules: act around each of the optimizer's steps, in this order, and finish at the end.
        callbacks: called with the progress after each step.
        checkpoint: a file written at each epoch's end and on interruption. If it exists, training continues from it; a
            finished run is not repeated.

    Returns:
        The progress, with the history of epochs.

    Raises:
        MismatchError: batches and outputs do not fit the objective, an epoch has no batches, or the scheduler counts
            steps but is stepped each epoch.
        UnsupportedError: the optimizer evaluates the loss several times a step, as LBFGS does.
        KeyboardInterrupt: on Ctrl-C, after the current step; model and checkpoint hold all that was done.
    """
    _check(model, batches, training)
    with ExitStack() as stack:
        stack.enter_context(_as_before(model))
        accelerator = Accelerator()
        optimizer = _optimizer(training, model)
        model.to(accelerator.device)
        attached = [stack.enter_context(attach(rule, model, optimizer)) for rule in rules]
        scheduler = _scheduler(training, optimizer)
        run = _Run(model, optimizer, scheduler, attached, Progress(model, rules=attached))
        run.resume(checkpoint)
        if (a_pass := n_batches(batches)) is not None:
            run.progress.n_steps = training.epochs * a_pass
        wrapped, prepared, loader = accelerator.prepare(model, optimizer, batches)
        answer = stack.enter_context(training.objective.on(wrapped))
        if not model.training:
            wrapped.train()
        interrupted = stack.enter_context(_interruption())
        while run.progress.epoch < training.epochs:
            for batch in run.batches(loader, training.seed):
                answered = answer(batch)
                prepared.zero_grad()
                accelerator.backward(answered.differentiable_loss)
                prepared.step()
                run.progress.count(answered)
                if scheduler and training.per_step:
                    scheduler.step()
                for callback in callbacks:
                    callback(run.progress)
                if interrupted.is_set():
                    run.save(checkpoint, accelerator)
                    raise KeyboardInterrupt
            if not run.progress.batch:
                raise MismatchError("batches: expected some each epoch, found none")
            run.progress.end_epoch()
            if scheduler and not training.per_step:
                _step_epoch(scheduler, run.progress.history[-1]["loss"])
            run.save(checkpoint, accelerator)
        prepared.zero_grad()
    return run.progress


def _optimizer(training: Training, model: nn.Module) -> Optimizer:
    """The optimizer, if it trains parameters of the model, and by one evaluation of the loss a step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise MismatchError("model: expected parameters that require gradients, found none")
    optimizer = training.optimizer(iter(parameters))
    if not isinstance(optimizer, Optimizer):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MismatchError(f"optimizer: expected a function that returns one, found {kind(optimizer)} from it")
    step = inspect.signature(optimizer.step).parameters.get("closure")
    if step and step.default is step.empty:
        name = type(optimizer).__name__
        raise UnsupportedError(f"optimizer: {name} evaluates the loss several times a step; use a loop of your own")
    mine = set(map(id, parameters))
    if not any(id(parameter) in mine for group in optimizer.param_groups for parameter in group["params"]):
        raise MismatchError("optimizer: expected one of the parameters that are passed to it, found one of others")
    return optimizer


def _scheduler(training: Training, optimizer: Optimizer) -> LRScheduler | None:
    """The scheduler, if there is one and it fits how it is stepped, and the optimizer."""
    if training.scheduler is None or (scheduler := training.scheduler(optimizer)) is None:
        return None
    if not hasattr(scheduler, "step"):
        raise MismatchError(f"scheduler: expected a function that returns one, found {kind(scheduler)} from it")
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise MismatchError("scheduler: expected one of the optimizer that is passed to it, found one of another")
    for part in _parts(scheduler):
        name = type(part).__name__
        if isinstance(part, (OneCycleLR, CyclicLR)) and not training.per_step:
            raise MismatchError(f"scheduler: {name} counts steps, not epochs; pass per_step=True")
        if isinstance(part, ReduceLROnPlateau) and (training.per_step or part is not scheduler):
            raise MismatchError(f"scheduler: {name} reads each epoch's loss; pass it alone, with per_step=False")
    return scheduler


def _parts(scheduler: LRScheduler) -> Iterator[LRScheduler]:
    """A scheduler, and those that it steps, as `SequentialLR` and `ChainedScheduler` do."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _parts(part)


def _step_epoch(scheduler: LRScheduler, loss: float) -> None:
    with warnings.catch_warnings():  # after going on from an epoch's last step, the optimizer made none
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        step: Callable[..., None] = scheduler.step
        step(*[loss] * isinstance(scheduler, ReduceLROnPlateau))


@contextmanager
def _as_before(model: nn.Module) -> Generator[None]:
    """Gradients are on inside; modes, random states and the model's attributes are as before, also after an error."""
    modes = {module: module.training for module in model.modules()}
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for module, mode in modes.items():
            module.training = mode
        vars(model).pop(ACCELERATED, None)


@dataclass
class _Run:
    """What a checkpoint holds."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    attached: list[Attached]
    progress: Progress
    _random: dict[str, Any] | None = None

    def batches(self, loader: Batches, seed: int) -> Iterator[Any]:
        """The epoch's batches that have not been seen."""
        set_seed((seed * 1_000_003 + self.progress.epoch) % 2**32)
        left = iter(loader)
        for _ in itertools.islice(left, self.progress.batch):
            pass
        if self._random:
            torch.set_rng_state(self._random["cpu"])
            if self._random["cuda"]:
                torch.cuda.set_rng_state_all(self._random["cuda"])
            self._random = None
        return left

    def save(self, path: str | os.PathLike[str] | None, accelerator: Accelerator) -> None:
        if path is None or not accelerator.is_main_process:
            return
        progress = self.progress
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "rules": [attached.state_dict() for attached in self.attached],
            "progress": [progress.epoch, progress.batch, progress.step, progress.history],
            "sums": progress._sums,
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda} if progress.batch else None,
        }
        save_state(path, state)

    def resume(self, path: str | os.PathLike[str] | None) -> None:
        if path is None or not Path(path).exists():
            return
        state = load_state(path)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        for attached, saved in zip(self.attached, state["rules"], strict=True):
            attached.load_state_dict(saved)
        progress = self.progress
        progress.epoch, progress.batch, progress.step, progress.history = state["progress"]
        progress._sums = state["sums"]
        self._random = state["random"]


@contextmanager
def _interruption() -> Generator[threading.Event]:
    """An event that the first Ctrl-C sets, so that no step is cut in half; the second one interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


class ProgressBar:
    """A callback that draws a bar while its `with` block lasts; one bar for each training.

    Args:
        label: what is being trained, such as ``round 3``.
        console: where to draw; by default the terminal.
    """

    def __init__(self, label: str, console: Console | None = None) -> None:
        from rich import get_console  # here, since importing it draws from the process's generator
        from rich import progress as bars

        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[means]}"),
            bars.TextColumn("sparsity {task.fields[sparsity]:.0%}"),
            bars.TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not (console or get_console()).is_terminal,
        )
        self._task = self._bar.add_task(label, total=None, means="", sparsity=0.0)

    def __call__(self, progress: Progress) -> None:
        """Show the progress."""
        if self._bar.disable:
            return
        fields = {}
        if progress.step % STEPS_BETWEEN_COUNTS == 1 or progress.batch == 1:
            with progress.deterministic() as model:
                fields["sparsity"] = sparsity(model)
        if progress.step % 5 == 1:
            accuracy = "" if math.isnan(progress.accuracy) else f"  acc {progress.accuracy:.1%}"
            fields["means"] = f"loss {progress.loss:.3f}{accuracy}"
        self._bar.update(self._task, completed=progress.step, total=progress.n_steps, **fields)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
