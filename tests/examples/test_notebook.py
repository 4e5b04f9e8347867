"""The notebook runs, says what its numbers say, and was committed with what it says today."""

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
        timeout=300,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook):
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream")


def table(notebook, column):
    """Row → column → number, of the one table that has `column`."""
    texts = [o.data["text/markdown"] for o in outputs(notebook) if "text/markdown" in o.get("data", {})]
    tables = [[[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()] for text in texts]
    (found,) = [rows for rows in tables if column in rows[0]]
    heads, _, *rows = found
    return {row[0]: {h: number(cell) for h, cell in zip(heads[1:], row[1:], strict=True)} for row in rows}


def number(text):
    return float(text.replace(",", "").rstrip("%"))


def column(rows, name):
    return {row: cells[name] for row, cells in rows.items()}


def lowest(values):
    return min(values, key=values.get)


def without_numbers(text):
    """Only names of networks keep theirs."""
    pattern = r"\d+% pruned|[+-]?\d[\d,.]*"
    return re.sub(pattern, lambda m: m[0] if m[0].endswith("pruned") else "#", text)


def test_a_fresh_run_concludes_what_was_committed(committed, executed):
    assert without_numbers(printed(executed)) == without_numbers(printed(committed))
    for name in ("total", "classic", "all"):
        was, now = (column(table(run, name), name) for run in (committed, executed))
        assert now == pytest.approx(was, rel=0.05)


def test_the_description_lengths_support_their_conclusion(executed):
    rows, text = table(executed, "total"), printed(executed)
    for row in rows.values():
        assert row["model bits"] == 8 * row["file bytes"]
        assert row["total"] == pytest.approx(row["model bits"] + row["data bits"], abs=1)
    totals = column(rows, "total")
    best = lowest(totals)
    longer = [name for name in totals if totals[name] > totals["dense"]]
    assert (f"{best} has the shortest description" in text) == (best != "dense")
    assert ("pruning does not pay" in text) == (best == "dense")
    assert f"Pruned, but longer than dense: {', '.join(longer) or 'none'}." in text
    no_network = 1000 * math.log2(3)
    verdict = "does not pay" if totals[best] > no_network else "pays"
    assert f"{no_network:,.0f} bits: the best one {verdict}." in text


def test_the_grids_support_their_conclusion(executed):
    rows, text = table(executed, "50% pruned"), printed(executed)
    sweep = {(error, name): bits for error, row in rows.items() for name, bits in row.items()}
    error, name = lowest(sweep)
    assert f"Shortest of all: {name} at relative error {error}:" in text
    pays = [e for e, row in rows.items() if min(row.values()) < 1000 * math.log2(3)]
    assert f"Relative errors at which a network pays: {', '.join(pays) or 'none'}." in text
    measured = column(table(executed, "total"), "total")
    assert rows["0.1"] == measured, "`describe` and `measure` agree"


def test_the_classic_account_is_judged_by_the_numbers(executed):
    rows, text = table(executed, "classic"), printed(executed)
    accounts = {label: column(rows, label) for label in ("classic", "classic, in bits", "measured")}
    for label, account in accounts.items():
        assert f"Shortest, {label}: {lowest(account)}." in text
    classic, measured = (accounts[label] for label in ("classic", "measured"))
    assert ("picks the wrong network" in text) == (lowest(classic) != lowest(measured))
    same = sorted(classic, key=classic.get) == sorted(measured, key=measured.get)
    assert f"The ranking of all networks {'stays the same' if same else 'changes'}." in text
    stages = table(executed, "total")
    for name, row in rows.items():
        nats, bits = (row[label] - stages[name]["active"] for label in list(accounts)[:2])
        assert nats == pytest.approx(bits * math.log(2), abs=1)


def test_a_survivor_costs_what_the_file_says(executed):
    rows, stages = table(executed, "survivors"), table(executed, "total")
    costs = {name: stages[name]["model bits"] / row["survivors"] for name, row in rows.items()}
    assert column(rows, "all") == pytest.approx(costs, abs=0.051)
    said = f"A survivor costs {min(costs.values()):.1f} to {max(costs.values()):.1f} bits"
    assert said in printed(executed)


def test_it_is_committed_whole_small_and_impersonal(committed):
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(not cell.metadata for cell in committed.cells), "no timing of the execution"
    assert committed.metadata.kernelspec.name == "python3"
    assert PATH.stat().st_size < 300_000
    streams = {o.name for o in outputs(committed) if o.output_type == "stream"}
    assert streams == {"stdout"}, "no warning"
    assert not re.search(r"/(home|root|tmp|Users)/", printed(committed))
