import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from laconic.description.ledger import Ledger, LedgerRow
from laconic.report.figures import accuracy_by_sparsity, mask_maps, weight_histograms
from laconic.report.page import render_page, write_page
from laconic.report.stage import Stage

HOSTILE = '<script>alert("1")</script> $\\frac{$'


def ledger(name="fc.weight"):
    rows = (
        LedgerRow("", "header", 96),
        LedgerRow(name, "weights", 704),
        LedgerRow("", "data", 250.5, measured=False),
    )
    return Ledger(rows, {"dense float32": 32_000.0}, n_cases=100)


def stages(name="dense"):
    return [
        Stage(name, 0.0, 1_000, 0.97, 500, ledger()),
        Stage("last", 0.9, 100, 0.96, 100, ledger()),
    ]


def page(name="dense", render=render_page, **options):
    weights = {name: torch.linspace(-1, 1, 40).reshape(4, 10)}
    figures = {
        f"Accuracy, {name}.": accuracy_by_sparsity(stages(name)),
        "Accuracy again.": accuracy_by_sparsity(stages(name)),
        "Weights.": weight_histograms(weights, weights),
        "Masks.": mask_maps(weights),
    }
    return render(
        title=name,
        stages=stages(name),
        figures=figures,
        settings={name: name},
        notes=[name],
        **options,
    )


class Elements(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_page_needs_no_network():
    html = page()
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    for tag, attributes in Elements(html).found:
        assert tag not in {"script", "link", "iframe"}
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))


def test_ids_are_unique_and_every_reference_finds_its_own():
    html = page()
    ids = Counter(a["id"] for _, a in Elements(html).found if "id" in a)
    assert ids.most_common(1)[0][1] == 1
    for figure in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        own = set(re.findall(r'\bid="([^"]+)"', figure))
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', figure)) <= own


def test_hostile_names_stay_text():
    elements = Elements(page(HOSTILE)).found
    assert "script" not in {tag for tag, _ in elements}
    assert any(a.get("aria-label") == f"Accuracy, {HOSTILE}." for _, a in elements)


def test_equal_inputs_give_equal_pages():
    assert page() == page()


def test_ink_follows_the_page_and_names_that_look_like_ink_do_not():
    html = page("fill: #000000")
    assert "fill: currentColor" in html
    assert "stroke: #1b1b1f" not in html
    assert ">fill: #000000</text>" in html


def test_headline_and_tables_say_what_the_stages_say():
    html = page()
    assert "The final file is 100 bytes, 40.0 times smaller than the dense network" in html
    assert "gets 96.00 % of the test cases right, against 97.00 % for the dense" in html
    assert html.count("fewest bits</span>") == 1
    for row in (
        "model: weights</th><td>704",
        "fc.weight</th><td>704",
        "dense float32</th><td>32,000",
    ):
        assert row in html
    assert "for reference" in html


def test_a_page_of_nothing_says_what_is_expected():
    with pytest.raises(ValueError, match="stages: expected at least one Stage, found none"):
        render_page("empty", [], {}, {})


def test_write_page_replaces_the_page_whole(tmp_path):
    path = tmp_path / "report.html"
    assert page(render=write_page, path=path) == path
    assert path.read_text(encoding="utf-8") == page()
    assert list(path.parent.iterdir()) == [path]


def test_a_page_that_fails_leaves_the_old_one_and_no_partial_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    broken = Figure()
    broken.text(0, 0, "$\\frac{$")  # not mathematics
    with pytest.raises(ValueError, match="frac"):
        write_page(path, "new", stages(), {"broken": broken}, {})

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_page(path, "new", stages(), {}, {})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
