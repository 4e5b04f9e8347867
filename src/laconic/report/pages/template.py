"""What pages have in common: one template, which others extend, and figures inside them."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from laconic.report.pages.svg import inline_svg

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
