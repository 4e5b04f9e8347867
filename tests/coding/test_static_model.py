import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coding.bitio import Cursor
from laconic.coding.fit import fit
from laconic.coding.layout import Layout
from laconic.coding.static_model import Formula, Levels, frequencies
from laconic.errors import FormatError


def formulas(n_classes=None):
    """Of so many classes, or of any number."""
    n = n_classes or 1
    return st.builds(
        lambda exponent, scale, growth, escape, spikes: Formula(exponent, scale, growth, escape, np.array(spikes)),
        exponent=st.integers(1, 63),
        scale=st.integers(-200, 400),
        growth=st.integers(0, 255),
        escape=st.integers(0, 240),
        spikes=st.lists(st.integers(-112, 112), min_size=n, max_size=n_classes or 16),
    )


@given(formulas())
def test_formulas_round_trip_and_give_tables(formula):
    order, data = formula.coded()
    source = Cursor(data, "here")
    back = Formula.read(source, formula.spikes.size, order)
    assert len(source) == 0
    assert vars(back).keys() == vars(formula).keys()
    assert all(np.array_equal(value, vars(formula)[name]) for name, value in vars(back).items())
    weights = formula.weights(-70, 150)
    assert (weights[:, :-1] > 0).all()
    assert ((weights[:, -1] > 0) == (formula.escape > 0)).all()
    sums = frequencies(weights, 12).sum(1)
    assert np.isin(sums, [0, 1 << 12]).all()  # 0 where rounding up, for many equal weights, overfills a table


def test_a_formula_is_a_generalised_gaussian_with_a_spike():
    x = np.arange(-300, 300)
    formula = Formula(12, 16 * 5, 8, 0, np.array([0, 24]))
    weights = formula.weights(-300, 600)[:, :-1]
    for k, scale in enumerate((32, 32 * 2**0.5)):
        expected = 30 - np.minimum((np.abs(x) / scale) ** 1.5, 30)
        expected[300] += 3 * k
        assert np.abs(np.log2(weights[k]) - expected)[np.abs(x) < 150].max() < 0.1


def test_parameters_out_of_range_are_refused():
    good = Formula(12, 16, 4, 0, np.array([3, 4]))
    order, data = good.coded()
    for at, value in ((0, 0), (0, 64), (3, 241)):
        bad = bytearray(data)
        bad[at] = value
        with pytest.raises(FormatError, match="formula"):
            Formula.read(Cursor(bytes(bad), "here"), 2, order)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            Formula.read(Cursor(data[:end], "here"), 2, order)


def test_small_tensors_of_many_scales_get_a_formula_and_large_ones_levels():
    rng = np.random.default_rng(0)

    def kind(n_rows, n_columns):
        scales = 20 * 2 ** rng.normal(0, 0.5, (n_rows, 1))
        q = np.rint(rng.normal(0, scales, (n_rows, n_columns))).astype(np.int32)
        return type(fit(q.ravel(), Layout(n_rows, n_columns))[0].tables)

    assert kind(100, 200) is Formula
    assert kind(2000, 1000) is Levels
