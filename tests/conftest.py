"""What every test runs under: shapes in annotations are checked, and nothing is timed."""

import os
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.support.typechecking  # noqa: F401 – named below

SOURCE = Path(__file__).parents[1] / "src"
MODULES = {".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
# typer reads annotations itself, torch.compile traces through these modules, and to look at a lazy mapping's
# item would be to read a tensor, which tests of files count; the adapter refuses wrong data itself.
UNCHECKED = (
    "laconic.cli",
    "laconic.model.modules",
    "laconic.model.selectors",
    "laconic.file",
    "laconic.datasets.adapter",
)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side on two cores
install_import_hook(
    sorted(name for name in MODULES if not name.startswith(UNCHECKED)), "tests.support.typechecking.check"
)
# Kernels compile at first use, so no deadline; derandomised, so that a failure is the change's.
settings.register_profile("laconic", deadline=None, derandomize=True)
settings.load_profile("laconic")


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
