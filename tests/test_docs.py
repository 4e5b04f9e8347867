"""The documentation has every public name, its snippets run, and its links lead somewhere."""

import pickle
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import TypeVar

import pytest

import laconic
from laconic import zoo
from laconic.pruning import criteria
from laconic.recipes.registry import rows
from tests.support.chromium import CHROMIUM, run_in

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    if "_build" not in path.parts and DOCS / "examples" not in path.parents
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def public_names(module):
    """Full name → what it is, of all that a module and the modules in its `__all__` offer."""
    names = getattr(module, "__all__", None) or [
        name
        for name, found in vars(module).items()
        if name[0] != "_" and getattr(found, "__module__", None) == module.__name__ and callable(found)
    ]
    found = {}
    for name in names:
        public = getattr(module, name)
        if isinstance(public, types.ModuleType):
            found |= public_names(public)
        elif not isinstance(public, TypeVar):
            found[f"{module.__name__}.{name}"] = public
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a build that runs the pages' snippets; a warning is an error."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "doctest"]
    run = subprocess.run([*command, str(DOCS), str(folder)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_pages_build_without_warnings_and_their_snippets_run(built):
    results = (built / "output.txt").read_text(encoding="utf-8")
    n_tests = int(re.search(r"(\d+) tests?\n +0 failures in tests", results)[1])
    pages = [page for page in PAGES if "```{testcode}" in page.read_text(encoding="utf-8")]
    assert n_tests >= len(pages) >= 5


MEASURE = """
const root = document.documentElement, smallest = textSizes(window, "article *")[0][0];
return [root.scrollWidth - root.clientWidth, smallest, document.querySelector("article img").clientWidth];
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_first_page_fits_a_desk_and_a_phone(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    text = (DOCS / "frontier.svg").read_text(encoding="utf-8")
    drawn_width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])
    smallest = min(map(float, re.findall(r"font(?:-size)?: ([\d.]+)px", text)))
    for width in (1280, 390):
        for dark in (False, True):
            (overflow, size, shown_width), console = run_in(tmp_path / "index.html", MEASURE, width, dark)
            assert console == [] and overflow <= 0 and size >= 11
            assert smallest * shown_width / drawn_width >= 11


def test_every_public_name_is_in_the_reference(built):
    environment = pickle.loads((built / ".doctrees" / "environment.pickle").read_bytes())
    documented = set(environment.domaindata["py"]["objects"])
    public = public_names(laconic)
    shown = {id(found) for name, found in public.items() if name in documented}
    # A name under which something is offered a second time needs no second entry.
    assert [name for name, found in public.items() if id(found) not in shown] == []
    assert {f"laconic.pruning.criteria.{name}" for name in criteria.CRITERIA} <= documented


def test_the_guide_to_recipes_lists_every_choice(built):
    page = pickle.loads((built / ".doctrees" / "recipes.doctree").read_bytes()).astext().split("\n\n")
    assert [f"{axis} {name}" for axis, name, _, _ in rows() if name not in page] == []


def test_the_guide_to_criteria_runs_and_keeps_their_promises():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    names = {}
    try:
        exec(snippet, names)
    finally:
        criteria.CRITERIA.pop("magnitude_of_row", None)
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
