import math

import pytest
import torch

from benchmarks.experiments.moments import exact, squared_error, through, through_linear
from laconic.mdl import Gaussian


def moments_by_trapezium(activation, mean, variance):
    z = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    shares = torch.softmax(-(z**2) / 2, 0)
    values = activation(mean + math.sqrt(variance) * z)
    first = (shares * values).sum()
    return float(first), float((shares * (values - first) ** 2).sum())


@pytest.mark.parametrize("activation", [torch.sigmoid, torch.tanh])
@pytest.mark.parametrize(("variance", "error"), [(0.0, 1e-8), (0.3, 1e-8), (10, 1e-8), (100, 1e-4)])
def test_moments_of_smooth_units(activation, variance, error):
    error = error if activation is torch.tanh else 1e-8  # tanh is a steeper logistic
    for mean in (-5.0, -1.0, 0.0, 0.7, 4.0):
        found = through(activation, Gaussian(*torch.tensor([[mean], [variance]], dtype=torch.float64)))
        expected = moments_by_trapezium(activation, mean, variance)
        assert (float(found.mean), float(found.variance)) == pytest.approx(expected, abs=error)


def network(seed=0):
    draw = torch.Generator().manual_seed(seed)

    def gaussian(*shape):
        normal = torch.randn(2, *shape, generator=draw, dtype=torch.float64)
        return normal[0], normal[1] - 2  # mean, log variance

    inputs, targets = (torch.randn(6, n, generator=draw, dtype=torch.float64) for n in (5, 2))
    return inputs, targets, [part for shape in ((3, 5), (3,), (2, 3), (2,)) for part in gaussian(*shape)]


def layers(parts):
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [Gaussian(mean, torch.exp(log_variance)) for mean, log_variance in pairs]


def outputs(inputs, parts):
    hidden, bias, out, out_bias = layers(parts)
    between = through(torch.sigmoid, through_linear(exact(inputs), hidden, bias))
    return through_linear(between, out, out_bias)


def test_the_expected_error_is_the_mean_over_networks():
    inputs, targets, parts = network()
    torch.manual_seed(0)
    n = 20_000
    hidden, bias, out, out_bias = (
        g.mean + g.variance.sqrt() * torch.randn(n, *g.mean.shape, dtype=torch.float64) for g in layers(parts)
    )
    between = torch.sigmoid(torch.einsum("ci,nhi->nch", inputs, hidden) + bias[:, None])
    drawn = torch.einsum("nch,noh->nco", between, out) + out_bias[:, None]
    found = outputs(inputs, parts)
    assert torch.allclose(found.mean, drawn.mean(0), atol=0.03)
    assert torch.allclose(found.variance, drawn.var(0), rtol=0.05)
    errors = ((targets - drawn) ** 2).sum((1, 2))
    expected = float(squared_error(found, targets).sum())
    assert expected == pytest.approx(float(errors.mean()), abs=5 * float(errors.std()) / n**0.5)


def test_gradients_are_those_of_finite_differences():
    inputs, targets, parts = network()

    def error(*parts):
        return squared_error(outputs(inputs, parts), targets).sum()

    assert torch.autograd.gradcheck(error, [part.requires_grad_() for part in parts])


def test_without_noise_it_is_the_network():
    inputs, _, parts = network()
    still = [part if index % 2 == 0 else torch.full_like(part, -math.inf) for index, part in enumerate(parts)]
    hidden, bias, out, out_bias = parts[::2]
    found = outputs(inputs, still)
    plain = torch.sigmoid(inputs @ hidden.T + bias) @ out.T + out_bias
    assert torch.allclose(found.mean, plain)
    assert found.variance.max() < 1e-12
