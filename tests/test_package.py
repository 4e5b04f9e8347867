import re
import subprocess
import sys
from pathlib import Path

import laconic


def test_importing_laconic_imports_nothing_heavy():
    code = "import sys, laconic; assert not {'torch', 'numba', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists_and_says_what_it_is():
    names = [name for name in laconic.__all__ if name != "__version__"]
    assert len(names) > 40
    for name in names:
        assert getattr(laconic, name).__doc__, name


def test_pre_commit_runs_the_pinned_versions():
    root = Path(__file__).parents[1]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (root / "constraints.txt").read_text(), re.MULTILINE))
    used = re.findall(r'\["(\w+)(?:\[\w+\])?==([\d.]+)"\]', (root / ".pre-commit-config.yaml").read_text())
    assert {name for name, _ in used} == {"ruff", "pyright"}
    assert all(pins[name] == version for name, version in used)
