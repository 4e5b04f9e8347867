"""What every test runs under: shapes in annotations are checked, and nothing is timed."""

import os

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.support.typechecking  # noqa: F401 – named below

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side on two cores
install_import_hook(
    ["laconic.pruning", "laconic.surgery.coupling", "laconic.surgery.plan", "laconic.zoo"],
    "tests.support.typechecking.check",
)
# Kernels compile at first use, so no deadline; derandomised, so that a failure is the change's.
settings.register_profile("laconic", deadline=None, derandomize=True)
settings.load_profile("laconic")


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
