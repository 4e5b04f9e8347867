"""Every script says what it measures, and starts nothing when it is asked for help."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.record_keeping import RESULTS

FOLDER = Path(__file__).parents[2] / "benchmarks" / "scripts"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_entry_parses_arguments_first(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    entry = tree.body[-1]
    assert isinstance(entry, ast.If)
    assert ast.unparse(entry.test) == "__name__ == '__main__'"
    assert "command_line(__doc__" in ast.unparse(entry.body[0])
    assert ".parse_args()" in ast.unparse(entry)


def test_help_is_the_docstring():
    command = [sys.executable, "-m", "benchmarks.scripts.calibrated", "--help"]
    found = subprocess.run(command, cwd=FOLDER.parents[1], capture_output=True, text=True, check=True).stdout
    assert "three draws of images" in found
    assert "--seeds" in found


def test_every_result_has_its_script():
    names = {path.name.partition(".")[0] for path in RESULTS.iterdir()}
    assert names == {path.stem for path in SCRIPTS}
