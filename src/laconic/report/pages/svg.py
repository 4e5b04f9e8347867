"""A figure as SVG inside a page: its text in the page's font, its ink in the page's colour."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

from laconic.report.figures.style import INK

_SVG = "{http://www.w3.org/2000/svg}"


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
