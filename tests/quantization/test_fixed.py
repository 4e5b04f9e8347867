import pytest
import torch

import laconic
from laconic.quantization import FixedBits


def decoded(quantizer, weight):
    found = quantizer.rounded(weight)
    return found, found.dequantizer.dequantize(found.q, tuple(weight.shape), weight.dtype)


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
