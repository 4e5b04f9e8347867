"""Coverage-guided fuzzing of the reader: `make fuzz`, or `python -m tests.fuzz.fuzz_reader [corpus] [-libfuzzer…]`.

The golden files are the first seeds. Kernels run as Python, so that coverage guides into them and an index out
of bounds is seen. A finding is any error but Laconic's own, memory beyond MOST_BYTES, or more than ten seconds.
"""

import os

os.environ["NUMBA_DISABLE_JIT"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import random
import resource
import sys
import tempfile
from pathlib import Path

import atheris
import torch  # noqa: F401 – loaded before the limit on memory is set, and not instrumented

with atheris.instrument_imports(include=["laconic"]):
    import laconic
    from laconic.coding import adaptive
    from laconic.description.describe import describe
    from laconic.errors import LaconicError
    from laconic.file import container
    from laconic.file.contents import inspect
    from laconic.file.save_load import load

from tests.fuzz import surgeon

GOLDEN = Path(__file__).parents[1] / "file" / "golden"
DECODED_BYTES = 1 << 14  # what a file may decode to, so that a run is short
ADAPTIVE_INTEGERS = 1000  # in a stream, each of which takes a millisecond as Python
MOST_BYTES = 1 << 30  # address space beyond what the interpreter has when fuzzing begins
LONGEST_FILE = 1 << 14
SCRATCH = Path(tempfile.mkdtemp()) / "mutant.lac"


def read(data):
    """Everything that a reader does with a file; Laconic's errors are answers."""
    SCRATCH.write_bytes(data)
    for action in (plan, load, inspect, describe):
        try:
            action(SCRATCH)
        except LaconicError as error:
            assert str(error)


def plan(path):
    with container.Reader(path) as reader:
        assert reader.plan is None or isinstance(reader.plan, laconic.surgery.Plan)


def mutate(data, most_bytes, seed):
    out = surgeon.mutated(data, lambda part: atheris.Mutate(part, len(part) + 64), random.Random(seed))
    return out[:most_bytes]


def main():
    container.FREE_BYTES, container.EXPANSION = DECODED_BYTES, 0
    adaptive.MAX_INTEGERS = ADAPTIVE_INTEGERS
    for file in sorted(GOLDEN.glob("*.lac")):
        read(file.read_bytes())  # imports what is imported late
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, resource.RLIM_INFINITY))
    limits = ["-timeout=10", "-rss_limit_mb=4096", f"-max_len={LONGEST_FILE}"]
    given = sys.argv[1:]
    if all(word.startswith("-") for word in given):  # the first folder is written to
        given.append(tempfile.mkdtemp())
    atheris.Setup([sys.argv[0], *limits, *given, str(GOLDEN)], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
