import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic.codec.spec import Method
from laconic.quantization import Codebook, FixedBits


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


@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_integers_have_the_width_and_each_row_its_own_scale(n_bits, dtype):
    scales = 2.0 ** torch.arange(-8, 8)[:, None, None, None]
    weight = (torch.randn(16, 5, 3, 3) * scales).to(dtype)
    weight[3] = 0
    found, back = decoded(FixedBits(n_bits), weight)
    most = 2 ** (n_bits - 1) - 1
    assert abs(found.q).max() == most
    assert found.dequantizer.scales.shape == (16,)
    assert not back[3].any()
    alone = [decoded(FixedBits(n_bits), row[None])[1][0] for row in weight]
    assert torch.equal(back, torch.stack(alone)), "rows do not depend on each other"


@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
def test_no_other_clipping_is_much_better(n_bits):
    weight = torch.randn(4, 500, generator=torch.Generator().manual_seed(0)).double() ** 3
    _, back = decoded(FixedBits(n_bits), weight)
    most = 2 ** (n_bits - 1) - 1
    errors = []
    for factor in torch.linspace(0.02, 1, 400):
        steps = factor * weight.abs().amax(1, keepdim=True) / most
        errors.append((weight - (weight / steps).round().clamp(-most, most) * steps).square().sum(1))
    found = (weight - back).square().sum(1)
    assert (found <= 1.05 * torch.stack(errors).amin(0)).all()
    assert n_bits == 8 or (found < 0.95 * errors[-1]).all(), "clipping helps"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_largest_numbers_stay_finite(dtype):
    weight = torch.full((4, 40), torch.finfo(dtype).max, dtype=dtype)
    weight[:, ::2] *= -1
    for n_bits in range(3, 9):
        _, back = decoded(FixedBits(n_bits), weight)
        assert ((back - weight).abs() <= weight.abs() / 2 ** (n_bits - 2)).all()
    for n_bits in range(2, 9):
        assert FixedBits(n_bits).rounded(torch.full((4, 40), 1e300, dtype=torch.float64)) is None


def test_vectors_stay_exact(tmp_path):
    model = laconic.zoo.lenet5()
    laconic.save(model, tmp_path / "a.lac", FixedBits(4))
    decoded = laconic.load(tmp_path / "a.lac")
    for name, tensor in model.state_dict().items():
        assert torch.equal(decoded[name], tensor) == (tensor.ndim < 2), name


@pytest.mark.parametrize("bad", [-1, 0, 1, 9])
def test_the_width_is_checked(bad):
    with pytest.raises(ValueError, match="n_bits: expected 2 to 8"):
        FixedBits(bad)
