"""The tables of the documentation are those of the committed results."""

import re

from benchmarks.plots import tables


def test_the_pages_are_what_the_results_say():
    shown = set()
    for path in tables.PAGES:
        page = path.read_text()
        assert tables.filled(page) == page
        shown |= {name for _, name, _ in tables.BETWEEN.findall(page)}
    assert shown == set(tables.TABLES)


def test_the_prose_states_no_figure_of_its_own():
    methods, *_ = tables.PAGES  # the others have examples that print some
    prose = tables.BETWEEN.sub("", methods.read_text())
    assert not re.findall(r"\d+(?:\.\d+)? ?%|\d+\.\d+ ?×", prose)
