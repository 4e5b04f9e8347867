"""The account of a compression as one self-contained page, to be read with no network at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from laconic.description.ledger import Measurement
from laconic.report.measurement import dense_float32_bits, fewest_bits, ledger_of
from laconic.report.pages.rendering import framed, render, write
from laconic.report.tensor_table import TensorTable

_MANY_TENSORS = 24


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        title: the page's heading.
        stages: measurements, from the dense network to the final file.
        figures: figures by caption.
        settings: what was chosen, by name.
        notes: sentences to read before the figures.
        tensors: what pruning left of each tensor.
    """

    title: str
    stages: Sequence[Measurement]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    tensors: TensorTable | None = None


def render_page(page: Page) -> str:
    """The page as HTML; equal inputs give equal text.

    Raises:
        ValueError: if there is no stage, or the stages describe different data or the last has no ledger.
    """
    stages = page.stages
    fewest = fewest_bits(stages)
    ledger = ledger_of(stages[-1])
    return render(
        "page.html",
        title=page.title,
        headline=_headline(stages),
        stages=stages,
        fewest=fewest,
        figures=framed(page.figures),
        account=page.tensors,
        ledger=ledger,
        parts=_shares(ledger.by_part().items(), ledger.total_bits),
        data_share=_share(ledger.data_bits, ledger.total_bits),
        tensors=_shares(ledger.by_tensor().items(), ledger.model_bits),
        many=_MANY_TENSORS,
        settings=page.settings,
        notes=page.notes,
    )


def write_page(path: str | os.PathLike[str], page: Page) -> Path:
    """Write `render_page`'s page to `path`: all of it or, if anything fails, nothing."""
    return write(path, render_page(page))


def _headline(stages: Sequence[Measurement]) -> str:
    first, last = stages[0], stages[-1]
    words = [f"The final file is {last.n_bytes:,.0f} bytes"]
    dense = dense_float32_bits(stages)
    if dense > 0 and last.n_bytes:
        words.append(f", {_times(dense / (8 * last.n_bytes))} than the dense network in float32")
    words.append(f"; decoded, it gets {100 * last.score:.2f} % of the test examples right")
    if len(stages) > 1:
        words.append(f", against {100 * first.score:.2f} % for the dense network")
    return "".join([*words, "."])


def _times(ratio: float) -> str:
    times, word = (ratio, "smaller") if ratio >= 1 else (1 / ratio, "larger")
    return f"{times:,.{1 if times < 100 else 0}f} times {word}"


def _shares(bits: Iterable[tuple[str, float]], whole: float) -> list[tuple[str, float, str]]:
    return [(name, n_bits, _share(n_bits, whole)) for name, n_bits in bits]


def _share(bits: float, whole: float) -> str:
    return f"{100 * bits / whole:.1f} %" if whole else "n/a"
