import numpy as np
import pytest

from laconic.coding import stream
from laconic.coding.bitio import Cursor
from laconic.coding.layout import Layout
from laconic.coding.prices import prices


def sparse(n_rows, n_columns, density):
    """Laplacian integers; every third row and every second column are empty."""
    rng = np.random.default_rng(0)
    q = np.rint(rng.laplace(0, 3, (n_rows, n_columns))) * (rng.random((n_rows, n_columns)) < density)
    q[::3] = 0
    q[:, ::2] = 0
    return q.astype(np.int32)


def lengths(q):
    return np.frexp(np.abs(q.ravel()).astype(float))[1]


@pytest.mark.parametrize("shape", [(60, 80), (1500, 800)], ids=["adaptive", "static"])
def test_they_add_up_to_the_stream(shape):
    q = sparse(*shape, 0.3)
    found = prices(q.ravel(), Layout(*shape), 8)
    total = found.tables[found.index, lengths(q)].sum()
    coded = stream.write(q.ravel(), Layout(*shape))
    assert ("adaptive" in str(stream.symbol_model(Cursor(coded, "here")))) == (shape[0] == 60)
    assert total == pytest.approx(8 * len(coded), rel=0.03)


@pytest.mark.parametrize("shape", [(60, 80), (1500, 800)], ids=["adaptive", "static"])
def test_a_weight_costs_more_where_all_others_are_zero(shape):
    q = sparse(*shape, 0.3)
    bits = (found := prices(q.ravel(), Layout(*shape), 8)).tables[found.index].reshape(*shape, 8)
    dead, alive = bits[3::3, 0::2], bits[1::3, 1::2]
    assert dead[..., 0].mean() < 0.2 < alive[..., 0].mean()
    assert dead[..., 1].mean() > alive[..., 1].mean() + 2
    assert (np.diff(bits[..., 2:5].mean((0, 1))) > 0.3).all()
