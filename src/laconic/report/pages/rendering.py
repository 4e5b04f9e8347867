"""What pages have in common: one template, which others extend, and figures inside them as SVG.

A figure takes its text's font and its ink's colour from the page.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from laconic.core.atomic import atomic
from laconic.report.figures.style import INK

_SVG = "{http://www.w3.org/2000/svg}"
_WIDE_INCHES = 5.5


def render(name: str, **values: object) -> str:
    """The template `name` of this folder, as HTML; texts among the values are escaped."""
    environment = Environment(
        loader=PackageLoader("laconic.report.pages", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(name).render(**values)


def write(path: str | os.PathLike[str], text: str) -> Path:
    """Write a page: all of it or, if anything fails, nothing."""
    with atomic(path) as file:
        file.write(text.encode())
    return Path(path)


def framed(figures: Mapping[str, Figure]) -> list[dict[str, object]]:
    """Figures by caption, as the template takes them."""
    return [
        {
            "caption": caption,
            # made by matplotlib, which escapes the names in it
            "svg": Markup(inline_svg(figure, f"figure-{at}", caption)),
            "wide": figure.get_figwidth() > _WIDE_INCHES,
        }
        for at, (caption, figure) in enumerate(figures.items(), start=1)
    ]


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an `<svg>` element; equal figures give equal text.

    Args:
        figure: the figure; its background becomes transparent and its `INK` the text's colour.
        prefix: put before every id, so that the figures of a page do not borrow each other's parts.
        label: what a screen reader says.
    """
    file = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    for element in root.iter():
        # Inside HTML an <svg> needs no namespaces.
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: text for name, text in element.attrib.items()}
        element.attrib = {name: _adapted(name, attributes[name], prefix) for name in attributes}
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _adapted(name: str, text: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{text}"
    if name == "href":
        return re.sub(r"^#", f"#{prefix}-", text)
    text = text.replace("url(#", f"url(#{prefix}-")
    return re.sub(rf"\b(fill|stroke): ({INK}|#000000)", r"\1: currentColor", text)
