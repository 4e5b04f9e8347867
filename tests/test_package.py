import subprocess
import sys

import laconic


def test_importing_laconic_imports_nothing_heavy():
    code = "import sys, laconic; assert not {'torch', 'numba', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists_and_says_what_it_is():
    names = [name for name in laconic.__all__ if name != "__version__"]
    assert len(names) > 40
    for name in names:
        assert getattr(laconic, name).__doc__, name
