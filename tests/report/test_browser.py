"""Reports in headless Chromium: on a desk and on a phone, light and dark, by mouse and by keyboard."""

import itertools

import pytest
import torch

from laconic.description import Ledger, LedgerRow, Measurement
from laconic.report.measurement import Trial
from laconic.report.pages import Page, standard_figures, write_frontier_page, write_page
from tests.support.chromium import CHROMIUM, run_in

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
WIDE = "model.layers.{}.self_attention.output_projection.weight"


def stage(name, n_bytes, score, kept):
    parts = ("weights", "tables", "scale", "directory", "code header", "escapes")
    rows = [LedgerRow(WIDE.format(i), part, 8 * n_bytes / 60) for i in range(9) for part in parts]
    rows += [LedgerRow("", "file header", 6 * 8 * n_bytes / 60), LedgerRow("", "data", 900.0, False, True)]
    ledger = Ledger(tuple(rows), {"dense float32": 1.6e6}, 1000)
    return Measurement(name, n_bytes, score, 900.0, 1 - kept, 50_000 * kept, ledger=ledger)


def report(folder):
    stages = [stage("dense", 20_000, 0.975, 1.0)]
    stages += [stage(f"{90 + i}% pruned", 5000 - 900 * i, 0.97 - i * i / 100, 0.1 - i / 100) for i in range(5)]
    weights = {WIDE.format(i): torch.randn(60, 40) for i in range(9)}
    mask = {name: weight.abs() > 1 for name, weight in weights.items()}
    after = {name: weight * mask[name] for name, weight in weights.items()}
    figures = standard_figures(stages, weights, after, mask)
    settings = {"criterion": "magnitude", "a very long option of a method": "x" * 90}
    return write_page(
        folder / "report.html", Page("Pruned", stages, figures, settings, ["A note."], command="laconic demo")
    )


def frontier(folder):
    trials = [
        Trial(
            f"{method} (rounds 4, curve geometric)",
            seed,
            Measurement(
                score=0.95 - kept + seed / 100, n_bytes=9000 * kept, sparsity=1 - kept, n_parameters=9e4 * kept,
                n_macs=1e5 * kept, data_bits=500.0,
            ),
            str(kept),
            Measurement(score=0.97, n_bytes=40_000, data_bits=100.0),
        )
        for method in ("one-shot", "lottery", "rigl")
        for kept in (0.1, 0.2, 0.5)
        for seed in (0, 1)
    ]  # fmt: skip
    return write_frontier_page(folder / "frontier.html", "Recipes compared", trials, command="laconic prune a.toml")


PAGES = {"report": report, "frontier": frontier}


@pytest.fixture(scope="module", params=PAGES)
def page(request, tmp_path_factory):
    return PAGES[request.param](tmp_path_factory.mktemp("page"))


MEASURE = """
const box = (element) => { const b = element.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
return {
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  smallest: textSizes(window, "body *")[0],
  figures: [...document.querySelectorAll("figure")].map(box),
  drawings: [...document.querySelectorAll("figure svg")].map(box),
  ground: window.getComputedStyle(document.body).backgroundColor,
  ink: window.getComputedStyle(document.querySelector("figure svg text")).fill,
};
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_fits_its_text_can_be_read_and_its_figures_stand_on_a_grid(page, width, dark):
    found, console = run_in(page, MEASURE, width, dark)
    assert console == []
    assert found["overflow"] <= 0
    size, text = found["smallest"]
    assert size >= 11, f"{text!r} is {size:.1f} px high"
    rows = {}
    for box in found["figures"]:
        rows.setdefault(round(box[1]), []).append(box)
    per_row = [len(boxes) for boxes in rows.values()]
    assert len(set(per_row)) == 1 and per_row[0] == (1 if width == 390 else 3 if "report" in page.name else 2)
    for boxes in rows.values():
        assert max(b[3] for b in boxes) - min(b[3] for b in boxes) < 1
        assert all(first[2] <= second[0] for first, second in itertools.pairwise(boxes))
    for figure, drawing in zip(found["figures"], found["drawings"], strict=True):
        assert figure[0] - 1 <= drawing[0] and drawing[2] <= figure[2] + 1
    shades = [sum(map(int, colour[4:-1].split(","))) for colour in (found["ground"], found["ink"])]
    assert (shades[0] < shades[1]) == dark


def test_points_have_hints_for_mouse_and_keyboard(page):
    script = """
    const point = document.querySelector(".point"), hint = document.getElementById("hint");
    const seen = [hint.hidden];
    point.dispatchEvent(new window.MouseEvent("mouseenter"));
    seen.push(hint.hidden, hint.textContent === point.getAttribute("aria-label"));
    const b = hint.getBoundingClientRect();
    seen.push(b.left >= 0 && b.right <= window.innerWidth);
    point.dispatchEvent(new window.MouseEvent("mouseleave"));
    seen.push(hint.hidden);
    point.focus();
    seen.push(document.activeElement === point, hint.hidden);
    document.dispatchEvent(new window.KeyboardEvent("keydown", { key: "Escape" }));
    seen.push(hint.hidden);
    return [seen, hint.textContent, document.querySelectorAll(".point").length];
    """
    (seen, text, n_points), console = run_in(page, script, 390)
    assert console == []
    assert seen == [True, False, True, True, True, True, False, True]
    assert "bytes" in text and "right" in text
    assert n_points >= 12


def test_tables_sort_by_their_headings(page):
    script = """
    const table = document.querySelector("table"), button = [...table.querySelectorAll("th button")].at(-1);
    const column = button.closest("th").cellIndex;
    const values = () => [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[column].textContent.replaceAll(",", "")));
    const found = [];
    for (let click = 0; click < 2; click += 1) {
      button.click();
      found.push([button.closest("th").getAttribute("aria-sort"), values()]);
    }
    button.focus();
    return [found, document.activeElement === button];
    """
    (found, by_keyboard), console = run_in(page, script)
    assert console == [] and by_keyboard
    for (direction, values), reverse in zip(found, (True, False), strict=True):
        assert direction == ("descending" if reverse else "ascending")
        assert values == sorted(values, reverse=reverse) and len(set(values)) > 1


def test_a_table_beyond_the_edge_of_a_phone_says_so(page):
    script = """
    const scroll = document.querySelector(".scroll"), before = scroll.classList.contains("goes-on");
    scroll.scrollLeft = scroll.scrollWidth;
    scroll.dispatchEvent(new window.Event("scroll"));
    return [before, scroll.classList.contains("goes-on"), scroll.tabIndex];
    """
    assert run_in(page, script, 390)[0] == [True, False, 0]
