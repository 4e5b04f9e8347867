"""A progress bar for the training loop: loss, accuracy, sparsity and time left."""

from __future__ import annotations

from rich import get_console
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from laconic.model.selectors import sparsity
from laconic.training.loop import Progress

STEPS_BETWEEN_COUNTS = 50


class ProgressBar:
    """A callback that draws a bar while its `with` block lasts; one bar a training.

    Args:
        label: what is being trained, such as ``round 3``.
        console: where to draw; by default the terminal.
    """

    def __init__(self, label: str, console: Console | None = None) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  acc {task.fields[accuracy]:.1%}"),
            TextColumn("sparsity {task.fields[sparsity]:.0%}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not (console or get_console()).is_terminal,
        )
        self._task = self._bar.add_task(label, total=None, loss=0.0, accuracy=0.0, sparsity=0.0)

    def __call__(self, progress: Progress) -> None:
        """Show where training stands."""
        if self._bar.disable:
            return
        fields = {}
        if progress.step % STEPS_BETWEEN_COUNTS == 1 or progress.batch == 1:
            with progress.deterministic() as model:
                fields["sparsity"] = sparsity(model)
        if progress.step % 5 == 1:
            fields |= {"loss": progress.loss, "accuracy": progress.accuracy}
        self._bar.update(self._task, completed=progress.step, total=progress.n_steps, **fields)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
