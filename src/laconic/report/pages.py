"""Self-contained HTML pages, to be read without a network: the account of a compression, and methods compared.

Pages extend one template and hold figures as SVG. A figure takes its text's font and its ink's colour from the page,
and its points become hints, for a mouse and for a keyboard. The only script sorts tables and shows these hints. The
page itself forbids whatever would need a network.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from laconic.core.atomic import atomic
from laconic.description.ledger import Measurement
from laconic.report.figures.frontier import frontier, look_of
from laconic.report.figures.stages import bits_by_tensor, description_bars, stage_curve
from laconic.report.figures.style import INK, need
from laconic.report.figures.tensors import mask_maps, weight_histograms
from laconic.report.measurement import (
    START,
    Quantity,
    Trial,
    by_setting,
    dense_float32_bits,
    fewest_bits,
    ledger_of,
    spread,
)
from laconic.report.tensor_table import TensorTable

FIGURES = {
    "Accuracy against the file's length": (Quantity.FILE_BYTES, Quantity.ACCURACY),
    "Accuracy against sparsity": (Quantity.SPARSITY, Quantity.ACCURACY),
    "Accuracy against multiply–adds": (Quantity.MULTIPLY_ADDS, Quantity.ACCURACY),
    "Bits for the file and the data": (Quantity.SPARSITY, Quantity.TOTAL_BITS),
}
HEADINGS = {
    Quantity.SPARSITY: "sparsity (%)",
    Quantity.ACCURACY: "accuracy (%)",
    Quantity.PARAMETERS: "active parameters",
    Quantity.MULTIPLY_ADDS: "multiply–adds",
    Quantity.FILE_BYTES: "file bytes",
    Quantity.TOTAL_BITS: "total bits",
}  # of columns
MIN_RATIO = 1.02  # of the largest and the smallest of what figures lay along an axis
SVG = "{http://www.w3.org/2000/svg}"


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
        command: what makes the same page again.
    """

    title: str
    stages: Sequence[Measurement]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    tensors: TensorTable | None = None
    command: str = ""


def standard_figures(
    stages: Sequence[Measurement], before: Mapping[str, Tensor], after: Mapping[str, Tensor], mask: Mapping[str, Tensor]
) -> dict[str, Figure]:
    """The figures of a compression by caption, given its weights before and after, and which of them stay."""
    return {
        "Accuracy against the file's length": stage_curve(stages),
        "What a weight that stays takes": stage_curve(stages, Quantity.PARAMETERS, Quantity.BITS_EACH),
        "Bits for the model and the data": description_bars(stages),
        "Where the final file's bytes went": bits_by_tensor(ledger_of(stages[-1])),
        f"Active weights, {stages[0].name} and at the end": weight_histograms(before, after),
        "Which weights stay": mask_maps(mask),
    }


def render_page(page: Page) -> str:
    """The page as HTML; equal inputs give equal text.

    Raises:
        ValueError: if there is no stage, or the stages describe different data or the last has no ledger.
    """
    fewest, ledger = fewest_bits(page.stages), ledger_of(page.stages[-1])

    def shares(bits: Mapping[str, float], whole: float) -> list[tuple[str, float, str]]:
        return [(name, n_bits, _share(n_bits, whole)) for name, n_bits in bits.items()]

    return _render(
        "page.html",
        page.figures,
        title=page.title,
        headline=_headline(page.stages),
        stages=page.stages,
        fewest=fewest,
        account=page.tensors,
        ledger=ledger,
        parts=shares(ledger.by_part(), ledger.total_bits),
        data_share=_share(ledger.data_bits, ledger.total_bits),
        tensors=shares(ledger.by_tensor(), ledger.model_bits),
        sections={
            "stages": "Stages",
            **({"notes": "Notes"} if page.notes else {}),
            **({"figures": "Figures"} if page.figures else {}),
            **({"account": "What is left of each tensor"} if page.tensors else {}),
            "ledger": "Where the bits went",
            "settings": "Settings",
            "reading": "How to read this",
        },
        command=page.command,
        settings=page.settings,
        notes=page.notes,
    )


def write_page(path: str | os.PathLike[str], page: Page) -> Path:
    """Write `render_page`'s page to `path`: all of it or, if anything fails, nothing."""
    return _write(path, render_page(page))


def write_frontier_page(
    path: str | os.PathLike[str],
    title: str,
    trials: Sequence[Trial],
    settings: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    command: str = "",
) -> Path:
    """Write a page of several methods' frontiers, means and deviations: all of it or, if anything fails, nothing.

    Measures that some trial does not know are left out, and figures along what is the same in all, to two percent.

    Args:
        path: of the page.
        title: the page's heading.
        trials: from `laconic.recipes.trials`, or made by hand.
        settings: what all trials share, by name.
        notes: sentences to read before the figures.
        command: what makes the same page again.

    Raises:
        ValueError: there is no trial.
    """
    need(trials, "trials: expected at least one Trial, found none")
    values = {quantity: [quantity.of(trial.pruned) for trial in trials] for quantity in Quantity}
    known = [quantity for quantity, found in values.items() if all(map(math.isfinite, found))]
    varying = [quantity for quantity in known if max(values[quantity]) > MIN_RATIO * min(values[quantity])]
    shown = {quantity: heading for quantity, heading in HEADINGS.items() if quantity in known}
    rows = [
        (method, look_of(at), len(runs), [spread((run.pruned for run in runs), m).text(m.form) for m in shown])
        for at, (method, found) in enumerate(by_setting(trials).items())
        for runs in found
    ]
    drawn = {
        caption: frontier(trials, x, y, legend=False)
        for caption, (x, y) in FIGURES.items()
        if x in varying and y in known
    }
    text = _render(
        "frontier.html",
        drawn,
        title=title,
        headline=_headline_of_trials(trials),
        headings=list(shown.values()),
        rows=rows,
        looks={method: look for method, look, *_ in rows},
        sections={
            "trials": "Trials",
            **({"notes": "Notes"} if notes else {}),
            **({"figures": "Figures"} if drawn else {}),
            **({"settings": "Settings"} if settings or command else {}),
            "reading": "How to read this",
        },
        command=command,
        settings=settings or {},
        notes=notes,
    )
    return _write(path, text)


def _render(template: str, figures: Mapping[str, Figure], **values: object) -> str:
    """A template's page, with figures by caption; texts among the values are escaped."""
    framed = [
        {
            "caption": caption,
            # made by matplotlib, which escapes the names in it
            "svg": Markup(inline_svg(figure, f"figure-{at}", caption)),
        }
        for at, (caption, figure) in enumerate(figures.items(), start=1)
    ]
    loader = PackageLoader("laconic.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template(template).render(figures=framed, **values)


def _write(path: str | os.PathLike[str], text: str) -> Path:
    with atomic(path) as file:
        file.write(text.encode())
    return Path(path)


def _headline(stages: Sequence[Measurement]) -> str:
    first, last = stages[0], stages[-1]
    before = first.name if first.name == START else "for the dense network"
    words = f"The final file is {last.n_bytes:,.0f} bytes"
    dense = dense_float32_bits(stages)
    if dense > 0 and last.n_bytes:
        ratio = dense / (8 * last.n_bytes)
        times, word = (ratio, "smaller") if ratio >= 1 else (1 / ratio, "larger")
        words += f", {times:,.{1 if times < 100 else 0}f} times {word} than the dense network in float32"
    words += f"; decoded, it gets {100 * last.score:.2f} % of the test examples right"
    return f"{words}, against {100 * first.score:.2f} % {before}." if len(stages) > 1 else f"{words}."


def _headline_of_trials(trials: Sequence[Trial]) -> str:
    """How much there is, and how good the dense networks are."""
    methods, seeds = {trial.method for trial in trials}, {trial.seed for trial in trials}
    counts = {"method": len(methods), "run": len(trials), "seed": len(seeds)}
    words = ", ".join(f"{n} {noun}" if n == 1 else f"{n} {noun}s" for noun, n in counts.items())
    dense = [trial.dense for trial in trials if trial.dense and math.isfinite(trial.dense.score)]
    if not dense:
        return f"{words}."
    accuracy = spread(dense, Quantity.ACCURACY)
    return f"{words}; the dense network gets {accuracy.mean:.2f} % of the test examples right."


def _share(bits: float, whole: float) -> str:
    return f"{100 * bits / whole:.1f} %" if whole else "n/a"


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an `<svg>` element of this `label`; equal figures give equal text.

    The background becomes transparent, and `INK` the text's colour. Ids begin with `prefix`, so that the figures of a
    page do not borrow each other's parts. Addresses of points become hints.
    """
    file = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for metadata in root.findall(f"{SVG}metadata"):
        root.remove(metadata)
    for element in root.iter():
        # Inside HTML an <svg> needs no namespaces.
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: text for name, text in element.attrib.items()}
        element.attrib = {name: _adapted(name, attributes[name], prefix) for name in attributes}
        if element.tag == "a":
            hint = attributes["href"].removeprefix("#")
            element.tag, element.attrib = "g", {"class": "point", "tabindex": "0", "role": "img", "aria-label": hint}
    root.attrib |= {"role": "group", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _adapted(name: str, text: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{text}"
    if name == "href":
        return re.sub(r"^#", f"#{prefix}-", text)
    text = text.replace("url(#", f"url(#{prefix}-")
    return re.sub(rf"\b(fill|stroke): ({INK}|#000000)", r"\1: currentColor", text)
