"""Benchmarks use what users may use: the names in the stubs, and the few exceptions that stand here."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))
EXCEPTIONS = {
    # The time of coding alone: nothing public codes a tensor without writing a file.
    "codec": {"laconic.codec.tensor.decode_tensor", "laconic.codec.tensor.encode_tensor"}
}


@cache
def names_of(module: str) -> dict[str, str | None]:
    """A module's public names; to each that is a public module itself, that module's name."""
    path = ROOT / "src" / module.replace(".", "/")
    if not (stub := path / "__init__.pyi").exists():
        return dict.fromkeys(defined(ast.parse(path.with_suffix(".py").read_text())))
    tree = ast.parse(stub.read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    rooms = {alias.name for node in imports if node.module is None for alias in node.names}
    names = {alias.asname or alias.name for node in imports for alias in node.names}
    names |= set(defined(tree)) - {"__all__"}
    return {name: f"{module}.{name}" if name in rooms else None for name in names}


def defined(tree: ast.Module) -> Iterator[str]:
    """Names without a leading underscore that a module defines."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        yield from (name for name in found if not name.startswith("_"))


def is_public(dotted: str) -> bool:
    """Whether the stubs lead from `laconic` to a name; attributes of what is no module are not looked at."""
    module: str | None = "laconic"
    for name in dotted.split(".")[1:]:
        if name not in names_of(module):
            return False
        module = names_of(module)[name]
        if module is None:
            break
    return True


def used(path: Path) -> Iterator[str]:
    """Every dotted name of the package that a file imports, looks up or runs."""
    tree = ast.parse(path.read_text())
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.fullmatch(r"[\w.]+", text := ast.unparse(node)):
            first, _, rest = text.partition(".")
            yield f"{bound.get(first, first)}.{rest}"
        elif isinstance(node, ast.Constant) and re.fullmatch(r"laconic(\.\w+)+", str(node.value)):
            yield str(node.value)  # as in `python -m`


def internal(path: Path) -> set[str]:
    names = {name for name in used(path) if name.partition(".")[0] == "laconic"}
    return {name for name in names if not is_public(name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "benchmarks")))
def test_only_public_names_are_used(path):
    assert internal(path) == EXCEPTIONS.get(path.stem, set())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import laconic\nlaconic.pruning.criteria.lamp\nlaconic.training.Hold.anything", set()),
        ("from laconic.training.schedules import geometric", set()),
        ("import laconic\nlaconic.pruning.mask.Mask", {"laconic.pruning.mask.Mask", "laconic.pruning.mask"}),
        ("from laconic.model.evidence import GRAM", {"laconic.model.evidence.GRAM"}),
        ("from laconic import zoo\nzoo._blocks", {"laconic.zoo._blocks"}),
        ("run('-m', 'laconic.cli.main')", {"laconic.cli.main"}),
    ],
)
def test_what_is_internal_is_found(tmp_path, source, found):
    path = tmp_path / "script.py"
    path.write_text(source)
    assert internal(path) == found
