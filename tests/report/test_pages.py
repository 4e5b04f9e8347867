from __future__ import annotations

import re
from collections import Counter, OrderedDict
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from laconic.description import Ledger, LedgerRow, Measurement
from laconic.report import compare_tensors
from laconic.report.figures import mask_maps, stage_curve, weight_histograms
from laconic.report.measurement import Trial
from laconic.report.pages import Page, render_page, write_frontier_page, write_page

HOSTILE = '<script>alert("1")</script> $\\frac{$'


def ledger(name="fc.weight"):
    rows = (
        LedgerRow("", "header", 96),
        LedgerRow(name, "weights", 704),
        LedgerRow("", "data", 250.5, measured=False, of_data=True),
    )
    return Ledger(rows, {"dense float32": 32_000.0}, n_examples=100)


def stages(name="dense"):
    return [
        Measurement(name, 500, 0.97, 250.5, 0.0, 1_000, ledger=ledger()),
        Measurement("last", 100, 0.96, 250.5, 0.9, 100, ledger=ledger()),
    ]


def page(name="dense"):
    weights = {name: torch.linspace(-1, 1, 40).reshape(4, 10)}
    figures = {
        f"Accuracy, {name}.": stage_curve(stages(name)),
        "Accuracy again.": stage_curve(stages(name)),
        "Weights.": weight_histograms(weights, weights),
        "Masks.": mask_maps(weights),
    }
    model = nn.Sequential(OrderedDict(fc=nn.Linear(10, 4)))
    rows = compare_tensors(model, model, torch.zeros(1, 10), ledger())
    return Page(name, stages(name), figures, {name: name}, [name], rows)


def html(name="dense"):
    return render_page(page(name))


class Elements(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_page_needs_no_network():
    text = html()
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    for tag, attributes in Elements(text).found:
        assert tag not in {"link", "iframe"}
        assert tag != "script" or not attributes  # inline
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))


def test_ids_are_unique_and_every_reference_finds_its_own():
    text = html()
    ids = Counter(a["id"] for _, a in Elements(text).found if "id" in a)
    assert ids.most_common(1)[0][1] == 1
    for figure in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        own = set(re.findall(r'\bid="([^"]+)"', figure))
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', figure)) <= own


def test_hostile_names_stay_text():
    elements = Elements(html(HOSTILE)).found
    assert [tag for tag, _ in elements].count("script") == 1
    assert "<script>alert" not in html(HOSTILE)
    assert any(a.get("aria-label") == f"Accuracy, {HOSTILE}." for _, a in elements)


def test_equal_inputs_give_equal_pages():
    assert html() == html()


def test_ink_follows_the_page_and_names_that_look_like_ink_do_not():
    text = html("fill: #000000")
    assert "fill: currentColor" in text
    assert "stroke: #1b1b1f" not in text
    assert ">fill: #000000</text>" in text


def test_headline_and_tables_say_what_the_stages_say():
    text = html()
    assert "The final file is 100 bytes, 40.0 times smaller than the dense network" in text
    assert "gets 96.00 % of the test examples right, against 97.00 % for the dense" in text
    assert text.count("fewest bits</span>") == 1
    for row in ("model: weights</th><td>704", "fc.weight</th><td>704", "dense float32</th><td>32,000"):
        assert row in text
    assert "for reference" in text


def test_the_account_of_tensors_adds_up_to_the_file():
    text = html()
    assert "fc.<wbr>weight</th><td>4×10</td><td>40</td><td>0.0%</td><td>40</td><td>40</td><td>40</td><td>88<" in text
    assert re.search(r'class="total">\n<th scope="row">total</th>.*<td>100</td>', text)
    assert "What is left" not in render_page(Page("no account", stages()))


def test_a_page_of_nothing_says_what_is_expected():
    with pytest.raises(ValueError, match="measurements: expected at least one, found none"):
        render_page(Page("empty", []))


def test_write_page_replaces_the_page_whole(tmp_path):
    path = tmp_path / "report.html"
    assert write_page(path, page()) == path
    assert path.read_text(encoding="utf-8") == html()
    assert list(path.parent.iterdir()) == [path]


def test_a_page_that_fails_leaves_the_old_one_and_no_partial_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    broken = Figure()
    broken.text(0, 0, "$\\frac{$")  # not mathematics
    with pytest.raises(ValueError, match="frac"):
        write_page(path, Page("new", stages(), {"broken": broken}))

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_page(path, Page("new", stages()))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


HOSTILE = "<b>lamp</b>"
KNOWN = {"data_bits": 100.0, "n_parameters": 40.0, "n_macs": 70.0}


def trials(**known):
    return [
        Trial(
            method,
            seed,
            Measurement(
                score=0.9 - sparsity / 10 + seed / 100, n_bytes=100 - 90 * sparsity, sparsity=sparsity, **known
            ),
            str(sparsity),
            Measurement(score=0.95, n_bytes=100.0, **known),
        )
        for method in ("magnitude", HOSTILE)
        for sparsity in (0.5, 0.9)
        for seed in (0, 1)
    ]


def test_the_page_has_means_deviations_and_figures_of_what_varies(tmp_path):
    path = write_frontier_page(tmp_path / "frontier.html", "Methods", trials(**KNOWN), {"data": "digits"})
    text = path.read_text(encoding="utf-8")
    assert "2 methods, 8 runs, 2 seeds; the dense network gets 95.00 % of the test examples right." in text
    assert "<td>2</td><td>50.0</td><td>85.50 ± 0.71</td><td>40</td><td>70</td><td>55</td><td>540</td>" in text
    captions = re.findall("<figcaption>(.*)</figcaption>", text)
    assert captions == [
        "Accuracy against the file&#39;s length",
        "Accuracy against sparsity",
        "Bits for the file and the data",
    ]
    assert text.count("magnitude</th>") == 2
    assert HOSTILE not in text
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert "digits" in text


def test_what_is_not_known_of_all_is_left_out(tmp_path):
    text = write_frontier_page(tmp_path / "frontier.html", "Methods", trials()).read_text(encoding="utf-8")
    assert text.count("<figcaption>") == 2
    assert '<th scope="col">total<br>bits' not in text
    assert "nan" not in text


def test_no_trial_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match="trials: expected at least one Trial, found none"):
        write_frontier_page(tmp_path / "frontier.html", "Nothing", [])
    assert list(tmp_path.iterdir()) == []
