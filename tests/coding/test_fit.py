import numpy as np
import pytest

from laconic.coding.fit import fit
from laconic.coding.layout import Layout


@pytest.mark.parametrize("seed", range(40))
def test_every_table_is_valid_also_of_classes_that_nothing_is_in(seed):
    """Two groups of rows, of scales far apart, leave the classes between them empty."""
    rng = np.random.default_rng(seed)
    n_rows = int(rng.integers(30, 80))
    scale = 2.0 ** (rng.uniform(4, 9) * (rng.random((n_rows, 1)) < 0.5) + rng.uniform(0, 6))
    drawn = rng.standard_t(rng.uniform(1, 6), (n_rows, 300)) * scale
    model, n_bits = fit(np.rint(drawn.clip(-(2**30), 2**30)).astype(np.int32).ravel(), Layout(n_rows, 300))
    assert np.isfinite(n_bits)
    assert (model.frequencies.sum(1) == 1 << model.precision).all()
