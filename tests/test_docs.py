"""The documentation has every public name, its snippets run, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import laconic
from laconic import datasets, zoo
from laconic.report.figures import stages

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    if "_build" not in path.parts and DOCS / "examples" not in path.parents
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def public_of(module):
    """What a module defines for others, by full name."""
    return {
        f"{module.__name__}.{name}"
        for name, found in vars(module).items()
        if name[0] != "_" and getattr(found, "__module__", None) == module.__name__
    }


def documented():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    found = set(re.findall(r"^\.\. auto(?:class|function|exception|data):: (\S+)$", text, re.M))
    for module in (datasets, zoo):
        if re.search(rf"^\.\. automodule:: {module.__name__}\n +:members:", text, re.M):
            found |= {module.__name__} | public_of(module)
    return found


def test_every_public_name_is_in_the_reference():
    expected = {f"laconic.{name}" for name in laconic.__all__}
    expected |= public_of(datasets) | public_of(zoo)
    expected |= {f"laconic.report.figures.{name}" for name in stages.__all__}
    expected |= {"laconic.formats.checkpoints.read_checkpoint"}
    assert sorted(expected - documented()) == []


def test_the_reference_names_nothing_that_is_not_there():
    gone = {name.removeprefix("laconic.") for name in documented() if name.count(".") == 1}
    assert sorted(gone - set(laconic.__all__)) == []


def test_pages_build_without_warnings_and_their_snippets_run(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "doctest"]
    built = subprocess.run([*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    results = (tmp_path / "output.txt").read_text(encoding="utf-8")
    n_tests = int(re.search(r"(\d+) tests?\n +0 failures in tests", results)[1])
    assert n_tests >= 5


def test_the_guide_to_criteria_runs_and_keeps_their_promises():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    names = {}
    exec(snippet, names)
    assert names["mask"].sparsity == pytest.approx(0.5)
    weights = laconic.model.compressible(zoo.blobs_net())
    lost = names["magnitude_of_row"](weights)
    assert {n: t.shape for n, t in lost.items()} == {n: t.shape for n, t in weights.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_internal_links_resolve(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        if DOCS / "examples" in found.parents:  # where the build puts copies
            found = ROOT / "examples" / found.name
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name}: {target}"


def anchors(page):
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}
