import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import torch

import laconic

SUITES = {
    "conformance",
    "golden",
    "hostile",
    "small_reader",
    "streaming",
    "oracle",
    "public_names",
    "surgeon",
    "browser",
}
SUITES |= {"axes_conformance", "records", "scripts", "notebook", "package", "docs", "readme"}
ROOT = Path(__file__).parents[1]


def test_importing_laconic_imports_nothing_heavy():
    code = "import sys, laconic; assert not {'torch', 'numba', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists_and_says_what_it_is():
    for room in (laconic, *namespaces(laconic)):
        for name in room.__all__:
            assert getattr(room, name).__doc__, f"{room.__name__}.{name}"


def test_the_top_has_few_names_and_none_of_torch():
    others = set(laconic.__all__) - {room.__name__.rpartition(".")[2] for room in namespaces(laconic)}
    assert 0 < len(others) <= 20
    assert others & {*torch.__all__, *dir(torch.nn), *dir(torch.optim)} == {"load", "save"}, "whose verbs they share"


def test_no_exported_name_is_that_of_a_module():
    """With lazy-loader 0.4 and 0.5 a function is hidden by its package's module of the same name, once imported."""
    for room in namespaces(laconic):
        for _, name, _ in pkgutil.iter_modules(getattr(room, "__path__", [])):
            assert name not in room.__all__ or isinstance(getattr(room, name), ModuleType), f"{room.__name__}.{name}"


def namespaces(package):
    members = [getattr(package, name) for name in package.__all__]
    return [member for member in members if isinstance(member, ModuleType) and hasattr(member, "__all__")]


def test_pre_commit_runs_the_pinned_versions():
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    used = re.findall(r'\["(\w+)(?:\[\w+\])?==([\d.]+)"\]', (ROOT / ".pre-commit-config.yaml").read_text())
    assert {name for name, _ in used} == {"ruff", "pyright"}
    assert all(pins[name] == version for name, version in used)


def test_tests_mirror_what_they_test():
    """`tests/room/test_module.py` is about `src/laconic/room/module.py`, or is a suite about several modules."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder, name = path.parent.relative_to(ROOT / "tests"), path.stem.removeprefix("test_")
        mirrored = (ROOT / "src" / "laconic" / folder / f"{name}.py", ROOT / folder / f"{name}.py")
        assert name in SUITES or any(file.exists() for file in mirrored), path


def test_files_and_functions_are_short():
    """400 lines a file; 40 a function, without its docstring."""
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
                assert (node.end_lineno or 0) - first.lineno < 40, f"{path}: {node.name}"
