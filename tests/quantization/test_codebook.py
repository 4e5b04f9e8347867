import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic.codec.spec import Method
from laconic.quantization import Codebook


def decoded(quantizer, weight):
    found = quantizer.rounded(weight)
    return found, found.dequantizer.dequantize(found.q, tuple(weight.shape), weight.dtype)


def squared(error):
    return float(error.double().square().sum())


@pytest.mark.parametrize("n_values", [4, 16, 256])
def test_its_error_is_at_most_that_of_as_many_even_levels(n_values):
    torch.manual_seed(0)
    weight = torch.randn(200, 300)
    _, found = decoded(Codebook(n_values), weight)
    assert len(found.unique()) <= n_values
    for extent in (1.0, 0.8, 0.6, 0.4):  # levels from the smallest to the largest, and clipped
        least, most = extent * weight.min(), extent * weight.max()
        step = (most - least) / (n_values - 1)
        even = ((weight.clamp(least, most) - least) / step).round() * step + least
        assert squared(found - weight) <= squared(even - weight), extent


def test_values_are_the_means_of_what_is_nearest_to_them():
    torch.manual_seed(0)
    weight = torch.randn(100, 100).double()
    _, found = decoded(Codebook(8), weight)
    values = found.unique()
    assert torch.equal(found, values[(weight[..., None] - values).abs().argmin(-1)])
    for value in values:
        assert weight[found == value].mean() == pytest.approx(float(value))


def test_a_normal_matrix_gets_the_best_values():
    """Max (1960), table 1: the least mean squared error of 16 levels for a normal density is 0.009497."""
    weight = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0))
    _, found = decoded(Codebook(16), weight)
    assert squared(found - weight) / weight.numel() == pytest.approx(0.009497, rel=0.01)


@given(seed=st.integers(0, 99), n_values=st.integers(2, 40), sparse=st.booleans())
def test_few_values_stay_as_they_are(seed, n_values, sparse):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(n_values, generator=draw)
    if sparse:
        values[0] = 0
    weight = values[torch.randint(n_values, (12, 30), generator=draw)]
    found, back = decoded(Codebook(n_values), weight)
    assert torch.equal(back, weight)
    expected = 0.0 if (weight == 0).any() else weight.flatten().mode().values
    counts = torch.unique(weight, return_counts=True)[1]
    if sparse or (counts == counts.max()).sum() == 1:
        assert found.dequantizer.values[found.dequantizer.origin] == expected


@pytest.mark.parametrize("outlier", [1e6, -1e30])
def test_a_far_outlier_costs_one_value(outlier):
    weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    weight[5, 6] = outlier
    found, back = decoded(Codebook(16), weight)
    assert len(found.dequantizer.values) == 16
    assert back[5, 6] == weight[5, 6]
    assert squared((back - weight).clamp(-9, 9)) / weight.numel() < 0.02


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype):
    weight = torch.randn(60, 60).to(dtype)
    found, back = decoded(Codebook(8), weight)
    assert found.dequantizer.values.dtype == back.dtype == dtype
    assert squared(back - weight) < 0.05 * squared(weight)


def test_small_tensors_stay_exact(tmp_path):
    for n, method in ((16, Method.EXACT), (20, Method.EXACT), (60, Method.CODEBOOK)):
        bias = torch.randn(n)
        laconic.save({"b": bias}, tmp_path / "b.lac", Codebook(16), include=["b"])
        with laconic.file.Reader(tmp_path / "b.lac") as reader:
            assert reader.entries["b"].spec.method is method
        assert torch.equal(laconic.load(tmp_path / "b.lac")["b"], bias) == (method is Method.EXACT)


@pytest.mark.parametrize("bad", [-1, 0, 1, 65_537])
def test_the_number_of_values_is_checked(bad):
    with pytest.raises(ValueError, match="n_values: expected 2 to 65,536"):
        Codebook(bad)
