import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import torch

import laconic


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
    assert not others & {*dir(torch), *dir(torch.nn), *dir(torch.optim)}


def test_no_exported_name_is_that_of_a_module():
    """With lazy-loader 0.4 and 0.5 a function is hidden by its package's module of the same name, once imported."""
    for room in namespaces(laconic):
        modules = {name for _, name, _ in pkgutil.iter_modules(getattr(room, "__path__", []))}
        assert not modules & set(room.__all__), room.__name__


def namespaces(package):
    members = [getattr(package, name) for name in package.__all__]
    return [member for member in members if isinstance(member, ModuleType) and hasattr(member, "__all__")]


def test_pre_commit_runs_the_pinned_versions():
    root = Path(__file__).parents[1]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (root / "constraints.txt").read_text(), re.MULTILINE))
    used = re.findall(r'\["(\w+)(?:\[\w+\])?==([\d.]+)"\]', (root / ".pre-commit-config.yaml").read_text())
    assert {name for name, _ in used} == {"ruff", "pyright"}
    assert all(pins[name] == version for name, version in used)
