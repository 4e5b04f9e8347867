import os
import pty
import subprocess
import sys

import pytest

KERNELS = """
from laconic.core.jit import kernel

@kernel
def one_more(x):
    return x + 1

@kernel
def one_less(x):
    return x - 1

assert one_less(one_more(3)) == 3
"""
SAID = b"laconic: compiling, once; later runs start at once"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_first_compilation_is_said_once_on_a_terminal(terminal, tmp_path):
    path = tmp_path / "kernels.py"
    path.write_text(KERNELS)

    def said():
        """What the script says on standard error."""
        reading, writing = pty.openpty() if terminal else os.pipe()
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        subprocess.run([sys.executable, path], check=True, stderr=writing, env=environment)
        os.write(writing, b"end")  # so that there is something to read
        found = os.read(reading, 10_000)
        os.close(reading)
        os.close(writing)
        return found

    assert said().count(SAID) == terminal
    assert SAID not in said()  # from the cache
