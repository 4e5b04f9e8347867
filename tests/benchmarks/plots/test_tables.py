"""The tables of the documentation are those of the committed results."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("benchmarks", None)
    from benchmarks import tables

    return tables


def test_the_pages_are_what_the_results_say(tables):
    shown = set()
    for path in tables.PAGES:
        page = path.read_text()
        assert tables.filled(page) == page
        shown |= {name for _, name, _ in tables.BETWEEN.findall(page)}
    assert shown == set(tables.TABLES)


def test_the_prose_states_no_figure_of_its_own(tables):
    import re

    methods, *_ = tables.PAGES  # the others have examples that print some
    prose = tables.BETWEEN.sub("", methods.read_text())
    assert not re.findall(r"\d+(?:\.\d+)? ?%|\d+\.\d+ ?×", prose)
