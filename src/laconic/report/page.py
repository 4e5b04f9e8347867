"""The account of a compression as one self-contained page, to be read with no network at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from laconic.atomic import atomic
from laconic.report.account import Account
from laconic.report.comparison import dense_float32_bits, fewest_bits
from laconic.report.stage import Stage
from laconic.report.template import framed, render

_MANY_TENSORS = 24


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        title: the page's heading.
        stages: the account, from the dense network to the final file.
        figures: figures by caption.
        settings: what was chosen, by name.
        notes: sentences to read before the figures.
        account: what pruning left of each tensor.
    """

    title: str
    stages: Sequence[Stage]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    account: Account | None = None


def render_page(page: Page) -> str:
    """The page as HTML; equal inputs give equal text.

    Raises:
        ValueError: if there is no stage, or the stages describe different data.
    """
    stages = page.stages
    if not stages:
        raise ValueError("stages: expected at least one Stage, found none")
    ledger = stages[-1].ledger
    return render(
        "account.html",
        title=page.title,
        headline=_headline(stages),
        stages=stages,
        fewest=fewest_bits(stages),
        figures=framed(page.figures),
        account=page.account,
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
    text = render_page(page)
    with atomic(path) as file:
        file.write(text.encode())
    return Path(path)


def _headline(stages: Sequence[Stage]) -> str:
    first, last = stages[0], stages[-1]
    words = [f"The final file is {last.file_bytes:,} bytes"]
    dense = dense_float32_bits(stages)
    if dense and last.file_bytes:
        words.append(f", {_times(dense / (8 * last.file_bytes))} than the dense network in float32")
    words.append(f"; decoded, it gets {100 * last.accuracy:.2f} % of the test cases right")
    if len(stages) > 1:
        words.append(f", against {100 * first.accuracy:.2f} % for the dense network")
    return "".join([*words, "."])


def _times(ratio: float) -> str:
    times, word = (ratio, "smaller") if ratio >= 1 else (1 / ratio, "larger")
    return f"{times:,.{1 if times < 100 else 0}f} times {word}"


def _shares(bits: Iterable[tuple[str, float]], whole: float) -> list[tuple[str, float, str]]:
    return [(name, n_bits, _share(n_bits, whole)) for name, n_bits in bits]


def _share(bits: float, whole: float) -> str:
    return f"{100 * bits / whole:.1f} %" if whole else "n/a"
