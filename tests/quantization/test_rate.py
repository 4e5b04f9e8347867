import copy
import math

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import laconic
from laconic.coding import stream
from laconic.coding.layout import Layout
from laconic.errors import MismatchError
from laconic.model.evidence import FISHER, GRAM, OF_TABLES, SENSITIVITY, Evidence, observe
from laconic.quantization import RateLoss, data_bits, layer_error, price_at, squared_error
from laconic.quantization.rate import Curvature


def layer(n_in=48, n_out=24, seed=0):
    """A weight, correlated inputs, and what they say."""
    torch.manual_seed(seed)
    linear = nn.Linear(n_in, n_out, bias=False)
    inputs = torch.randn(400, n_in // 4) @ torch.randn(n_in // 4, n_in) + 0.3 * torch.randn(400, n_in)
    evidence = laconic.model.observe(linear, [(inputs, torch.zeros(400))], [GRAM])
    return linear.weight.detach(), inputs, evidence


def rounded(quantizer, weight, name="weight"):
    found = quantizer.per_tensor({name: weight})[name].rounded(weight)
    q, scale = found.q, found.dequantizer.scale
    return torch.from_numpy(q * scale).reshape(weight.shape).to(weight.dtype), q, scale


def cost_bits(quantizer, weight, q, scale):
    """Bits of the integers, and of the loss at its price."""
    n_bytes = len(stream.write(q.astype(np.int32), Layout(*weight.shape, ())))
    decoded = torch.from_numpy(q * scale).reshape(weight.shape)
    curvature = quantizer.loss("weight", weight, quantizer.evidence)
    error = (weight - decoded).double()
    gram = torch.eye(weight.shape[1], dtype=torch.float64)[None] if curvature.gram is None else curvature.gram
    return 8 * n_bytes + quantizer.price * curvature.scale * float(((error @ gram[0]) * error).sum())


@pytest.mark.parametrize("loss", [squared_error, layer_error])
def test_bits_plus_price_times_loss_is_lower_than_with_nearest_integers(loss):
    _, _, evidence = layer(96, 256)
    weight = 0.1 * torch.randn(256, 96)
    quantizer = RateLoss(2000.0 if loss is squared_error else 5e4, loss, evidence)
    _, q, scale = rounded(quantizer, weight)
    nearest = (weight / scale).round().reshape(-1).numpy()
    assert (q != nearest).any()
    assert cost_bits(quantizer, weight, q, scale) < cost_bits(quantizer, weight, nearest, scale)


def test_what_is_saved_is_what_was_rounded(tmp_path):
    weight, _, evidence = layer()
    quantizer = RateLoss(1e4, evidence=evidence)
    laconic.save({"weight": weight}, tmp_path / "w.lac", quantizer)
    assert torch.equal(laconic.load(tmp_path / "w.lac")["weight"], rounded(quantizer, weight)[0])


def test_errors_are_made_up_for_in_the_layers_output():
    weight, inputs, evidence = layer()
    exact = inputs @ weight.T
    with_gram, q, scale = rounded(RateLoss(1e4, evidence=evidence), weight)
    nearest = (weight / scale).round() * scale

    def error(decoded):
        return float((inputs @ decoded.T - exact).norm() / exact.norm())

    assert error(with_gram) < 0.7 * error(nearest)
    assert not np.array_equal(q, (weight / scale).round().reshape(-1).numpy())


@pytest.mark.parametrize("price", [1e3, 1e4, 1e5])
def test_the_relative_error_is_about_what_the_price_promises(price):
    weight = torch.randn(200, 100, generator=torch.Generator().manual_seed(0))
    decoded, _, _ = rounded(RateLoss(price * weight.numel() / 100), weight)
    error = float((decoded - weight).norm() / weight.norm())
    assert error == pytest.approx(math.sqrt(0.72 * 100 / price), rel=0.35)


def test_the_price_of_a_stated_squared_error():
    weight = torch.randn(200, 100, generator=torch.Generator().manual_seed(0))
    decoded, _, _ = rounded(RateLoss(price_at(5.0, weight.numel()), squared_error), weight)
    assert float((decoded - weight).square().sum()) == pytest.approx(5.0, rel=0.1)


def test_the_relative_error_of_tables_counts_more():
    weight = torch.randn(200, 100, generator=torch.Generator().manual_seed(0))
    errors = [
        float((rounded(RateLoss(1e6, evidence=Evidence(tables=tables)), weight)[0] - weight).square().sum())
        for tables in (frozenset(), frozenset({"weight"}))
    ]
    assert errors[0] == pytest.approx(OF_TABLES * errors[1], rel=0.3)


def test_the_same_choice_is_shown_alike_in_every_process():
    assert repr(RateLoss(2.0, squared_error)) == "RateLoss(2.0, squared_error, evidence.n=0)"


def test_dearer_losses_make_longer_files(tmp_path):
    weight, _, evidence = layer(96, 256)
    sizes = [
        laconic.save({"weight": weight}, tmp_path / "w.lac", RateLoss(price, evidence=evidence))
        for price in (1e2, 1e3, 1e4, 1e5)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 3


def test_kronecker_factored_bits_spare_the_outputs_that_matter():
    weight, _, evidence = layer()
    sensitivity = torch.full((24,), 1e-3)
    sensitivity[::2] = 1.0
    both = Evidence(400, {**evidence.found, SENSITIVITY: {"weight": sensitivity}})
    decoded, _, _ = rounded(RateLoss(1.0, data_bits, both), weight)
    errors = (decoded - weight).square().sum(1)
    assert errors[::2].mean() < 0.8 * errors[1::2].mean()


def test_weights_that_do_not_matter_become_zero_and_others_stay_near():
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    fisher = torch.full_like(weight, 1e-9)
    fisher[:, ::2] = 1.0
    decoded, _, _ = rounded(RateLoss(1.0, data_bits, Evidence(1000, {FISHER: {"weight": fisher}})), weight)
    assert (decoded[:, 1::2] == 0).all()
    assert (decoded - weight)[:, ::2].abs().max() < 0.5


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 1), (1, 5), (3, 4, 2, 2)])
def test_any_shape_and_zeros(shape):
    for weight in (torch.randn(shape), torch.zeros(shape)):
        decoded, q, _ = rounded(RateLoss(1e6), weight)
        assert decoded.shape == weight.shape
        assert torch.allclose(decoded, weight, atol=0.1)
        assert q.dtype == np.int32


def test_groups_of_a_convolution_have_their_own_inputs():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, groups=4, bias=False)
    inputs = torch.randn(16, 8, 6, 6)
    evidence = laconic.model.observe(conv, [(inputs, torch.zeros(16))], [GRAM])
    decoded, _, _ = rounded(RateLoss(1e5, evidence=evidence), conv.weight.detach())
    with torch.no_grad():
        exact = conv(inputs)
        conv.weight.copy_(decoded)
        assert (conv(inputs) - exact).norm() / exact.norm() < 0.1


def test_refusals(tmp_path):
    weight = torch.randn(6, 4)
    for price in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="price: expected above 0"):
            RateLoss(price)
    with pytest.raises(MismatchError, match="FISHER"):
        laconic.save({"w": weight}, tmp_path / "w.lac", RateLoss(1.0, data_bits))
    with pytest.raises(MismatchError, match=r"w: curvature is \(1, 5, 5\), tensor is \(6, 4\)"):
        wrong = RateLoss(1.0, lambda *_: Curvature(gram=torch.eye(5)[None]))
        laconic.save({"w": weight}, tmp_path / "w.lac", wrong)
    with pytest.raises(MismatchError, match=r"w: curvature has 5 rows, tensor is \(6, 4\)"):
        wrong = RateLoss(1.0, lambda *_: Curvature(torch.ones(5)))
        laconic.save({"w": weight}, tmp_path / "w.lac", wrong)
    with pytest.raises(laconic.errors.UnsupportedError, match="expected a Grid for a difference"):
        laconic.save({"w": weight}, tmp_path / "w.lac", RateLoss(1.0), base={"w": weight})
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
@pytest.mark.parametrize("kind", ["across", "experts", "attention"])
def test_weights_in_any_form_are_rounded_by_their_outputs(kind, tmp_path):
    """Rows of transformers' Conv1D, of experts and of packed projections: better than without data at equal bytes."""
    torch.manual_seed(0)
    model, args = {
        "across": lambda: (transformers.pytorch_utils.Conv1D(48, 32), (correlated(256, 32),)),
        "experts": lambda: (Experts(), (torch.stack([correlated(64, 32) for _ in range(3)]),)),
        "attention": lambda: (nn.MultiheadAttention(32, 4), (correlated(64, 32)[:, None],) * 3),
    }[kind]()
    model.eval()
    nn.init.normal_(next(model.parameters()))
    evidence = observe(model, [(args if len(args) > 1 else args[0], None)], [GRAM])
    curves = []
    for loss in (layer_error, lambda name, w, e: Curvature(1 / float(w.double().square().sum()))):
        curve = {}
        for price in np.geomspace(1e4, 3e5, 6):
            n_bytes = laconic.save(model, tmp_path / "n.lac", RateLoss(float(price), loss, evidence))
            decoded = laconic.load(tmp_path / "n.lac", into=copy.deepcopy(model))
            exact, found = (y[0] if isinstance(y, tuple) else y for y in (model(*args), decoded(*args)))
            curve[n_bytes] = float((exact - found).square().sum() / exact.square().sum())
        curves.append(sorted(curve.items()))
    least, most = (pick(curve[at][0] for curve in curves) for pick, at in ((max, 0), (min, -1)))
    ours, theirs = (np.interp(np.log((least + most) / 2), *np.log(curve).T) for curve in curves)
    assert ours < theirs


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 32, 48))

    def forward(self, x):
        return torch.bmm(x, self.w)


def correlated(n, d):
    return torch.randn(n, 6) @ torch.randn(6, d) + 0.1 * torch.randn(n, d)
