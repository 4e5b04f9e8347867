"""The notebook runs, says what its numbers say, and was committed whole."""

import math
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parents[2] / "examples" / "pruning_mdl.ipynb"


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(PATH, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = nbformat.read(PATH, as_version=4)
    for cell in notebook.cells:
        cell.outputs = []
    folder = tmp_path_factory.mktemp("notebook")
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook):
    """All that is printed, long lines unbroken."""
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream").replace("\n  ", " ")


def markdowns(notebook):
    return [o.data["text/markdown"] for o in outputs(notebook) if "text/markdown" in o.get("data", {})]


def figures(notebook):
    return [o.data["image/svg+xml"] for o in outputs(notebook) if "image/svg+xml" in o.get("data", {})]


def tables(notebook):
    """Each table as rows of cells, its headings first."""
    texts = [text for text in markdowns(notebook) if text.startswith("|")]
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()] for text in texts]
    return [[heads, *entries] for heads, _, *entries in rows]


def table(notebook, column, n=0):
    """Row → column → cell, of the n-th table that has `column`."""
    found = [rows for rows in tables(notebook) if column in rows[0]]
    heads, *rows = found[n]
    return {row[0]: dict(zip(heads[1:], row[1:], strict=True)) for row in rows}


def number(text):
    """The number that a cell begins with."""
    return float(re.match(r"-?[\d.]+", text.replace(",", ""))[0])


def column(rows, name):
    return {row: number(cells[name]) for row, cells in rows.items()}


def lowest(values):
    return min(values, key=values.get)


def verdict(notebook, begin):
    """What a comparison says that begins so: its mean gap in points, and its words."""
    return re.search(rf"^{re.escape(begin)}.*?: ([+-][\d.]+) points, (.*)\.$", printed(notebook), re.M).groups()


def test_a_fresh_run_measures_what_was_committed(committed, executed):
    """Blobs agree closely on any machine; a thousand steps on digits amplify how a processor rounds."""
    was, now = (column(table(run, "total bits"), "total bits") for run in (committed, executed))
    assert now == pytest.approx(was, rel=0.05)
    was, now = (column(table(run, "total bits", 1), "total bits") for run in (committed, executed))
    assert now == pytest.approx(was, rel=0.5)
    assert [rows[0] for rows in tables(executed)] == [rows[0] for rows in tables(committed)]


@pytest.mark.parametrize(("place", "no_network"), [(0, 1000 * math.log2(3)), (1, 1437 * math.log2(10))])
def test_the_description_lengths_support_their_conclusion(executed, place, no_network):
    rows, text = table(executed, "total bits", place), printed(executed)
    for row in rows.values():
        model, data, total = (number(row[f"{part} bits"]) for part in ("model", "data", "total"))
        assert model == 8 * number(row["file bytes"])
        assert total == pytest.approx(model + data, abs=1)
    totals = column(rows, "total bits")
    best = lowest(totals)
    assert f"Shortest: {best}, {totals[best]:,.0f} bits" in text
    does = "does not pay" if totals[best] > no_network else "pays"
    assert f"take {no_network:,.0f} bits:\nthe best network {does}." in text


def test_pruning_shows_on_digits(executed):
    """Accuracy falls without fine-tuning, comes back with it, and later in rounds."""
    before, after = (column(table(executed, "after (%)"), name) for name in ("before fine-tuning (%)", "after (%)"))
    rounds = column(table(executed, "iterative (%)"), "iterative (%)")
    assert before["50 %"] > before["95 %"] + 40
    assert after["90 %"] > before["90 %"] + 10
    assert rounds["99 %"] > after["99 %"] + 10
    assert rounds["99.5 %"] < rounds["90 %"] - 10


@pytest.mark.parametrize("amount", ["90 %", "95 %", "99 %"])
def test_a_comparison_says_what_its_table_says(executed, amount):
    row = table(executed, "iterative (%)")[amount]
    gap, words = verdict(executed, f"At {amount}, iterative against one-shot")
    assert float(gap) == pytest.approx(number(row["iterative (%)"]) - number(row["one-shot (%)"]), abs=0.11)
    if words.startswith(("better", "worse")):
        assert words.startswith("better") == (float(gap) > 0)


def test_the_grids_support_their_conclusion(executed):
    rows, text = table(executed, "relative error"), printed(executed)
    sweep = {(error, name): number(bits) for error, row in rows.items() for name, bits in row.items()}
    error, name = lowest(sweep)
    assert f"Shortest of all: {name} at relative error {error}: {sweep[error, name]:,.0f} bits" in text
    pays = [e for e, row in rows.items() if min(map(number, row.values())) < 1437 * math.log2(10)]
    assert f"Relative errors at which a network pays: {', '.join(pays) or 'none'}." in text
    measured = column(table(executed, "total bits", 1), "total bits")
    assert {name: number(bits) for name, bits in rows["0.1"].items()} == measured, "`describe` and `measure` agree"


def test_the_classic_account_is_judged_by_the_numbers(executed):
    rows, text = table(executed, "classic"), printed(executed)
    accounts = {label: column(rows, label) for label in ("classic", "classic, in bits", "measured")}
    for label, account in accounts.items():
        assert f"Shortest, {label}: {lowest(account)}." in text
    assert ("picks the wrong network" in text) == (lowest(accounts["classic"]) != lowest(accounts["measured"]))
    active = column(table(executed, "total bits", 1), "active")
    for name, count in active.items():
        nats, bits = (accounts[label][name] - count for label in ("classic", "classic, in bits"))
        assert nats == pytest.approx(bits * math.log(2), abs=1.1)


def test_a_survivor_costs_what_the_file_says(executed):
    rows, stages = table(executed, "survivors"), table(executed, "total bits", 1)
    bits = column(stages, "model bits")
    costs = {name: bits[name] / count for name, count in column(rows, "survivors").items()}
    assert column(rows, "all") == pytest.approx(costs, abs=0.051)
    said = f"A survivor costs {min(costs.values()):.1f} to {max(costs.values()):.1f} bits"
    assert said in printed(executed)


def test_the_codes_are_ranked_by_their_totals(executed):
    totals, text = column(table(executed, "label bits"), "total"), printed(executed)
    assert f"From the shortest: {'; '.join(sorted(totals, key=totals.get))}." in text
    paying = {name for name, total in totals.items() if total < totals["no network"]}
    said = set(re.search(r"Shorter than the bare labels: (.*)\.", text)[1].split("; "))
    assert said == paying
    assert {"variational, bits back", "prequential"} <= paying


def test_only_what_is_cut_is_faster(executed):
    rows = table(executed, "ms, cut")
    dense = number(rows["dense"]["ms, with zeros"])
    cut = {kind: number(row["ms, cut"]) for kind, row in rows.items() if row["ms, cut"] != "–"}
    assert set(cut) == {"channels", "layers"}
    assert all(time < 0.9 * dense for time in cut.values())
    sizes = column(rows, "file bytes")
    assert f"Shortest file: {lowest(sizes)}," in printed(executed)


def test_the_takeaways_with_wide_margins_hold(executed):
    """Those that no rounding of another processor turns around."""
    for begin in (
        "The ticket against its mask on fresh weights",
        "Its mask on fresh weights against a shuffled mask",
        "RigL against a static mask",
        "At 99 % after 60 epochs, gradually against at once",
        "Before fine-tuning, the scan's rates against one rate",
    ):
        assert float(verdict(executed, begin)[0]) > 0, begin
    assert float(verdict(executed, "Before fine-tuning, Taylor against magnitude")[0]) < 0


def test_the_end_repeats_every_conclusion(executed):
    (said,) = [text for text in markdowns(executed) if text.startswith("* **")]
    lines = said.splitlines()
    concluding = [c for c in executed.cells if c.cell_type == "code" and re.search(r"^ *conclude\(", c.source, re.M)]
    assert len(lines) == len(concluding) >= 20
    text = " ".join(printed(executed).split())
    for line in lines:
        assert " ".join(line.partition(".** ")[2].split()) in text


def test_without_the_repository_the_rates_say_what_they_need(executed, capsys):
    """The cell of the rates, as someone with only the installed package runs it."""
    (cell,) = [cell for cell in executed.cells if cell.source.startswith("if results is None:")]
    exec(cell.source, {"results": None})
    assert "benchmarks/results" in capsys.readouterr().out
    assert column(table(executed, "points lost"), "bytes"), "this repository has them"


def test_the_table_of_contents_leads_to_every_section(committed):
    """Headings carry their anchors, since each viewer makes its own: Sphinx in lower case, Jupyter not."""
    text = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    heads = re.findall(r'^<a id="(.*)"></a>\n\n(##+) (.*)$', text, re.M)
    assert len(heads) == len(re.findall(r"^##+ ", text, re.M))
    for anchor, _, head in heads:
        assert anchor == re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
    contents, links = (set(re.findall(r"\]\(#([^)]*)\)", part)) for part in (committed.cells[0].source, text))
    assert links <= {anchor for anchor, _, _ in heads}
    assert {anchor for anchor, level, _ in heads if level == "##"} - contents <= {"13-takeaways"}


def test_figures_are_sharp_legible_and_follow_dark_pages(committed):
    found = figures(committed)
    assert len(found) >= 10
    for svg in found:
        sizes = {float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )?([\d.]+)px", svg)}
        assert sizes and min(sizes) >= 9
        assert "prefers-color-scheme: dark" in svg
    assert not [o for o in outputs(committed) if "image/png" in o.get("data", {})]


def test_it_is_committed_whole_small_and_impersonal(committed):
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert max(len(cell.source.splitlines()) for cell in code) <= 26, "a cell can be taken in at a glance"
    assert all(not cell.metadata for cell in committed.cells), "no timing of the execution"
    assert committed.metadata.kernelspec.name == "python3"
    assert PATH.stat().st_size < 700_000
    streams = {o.name for o in outputs(committed) if o.output_type == "stream"}
    assert streams == {"stdout"}, "no warning"
    assert not re.search(r"/(home|root|tmp|Users)/", printed(committed))
