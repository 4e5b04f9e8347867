import pytest
import torch

from benchmarks.scripts.hinton_van_camp import N_WEIGHTS, Noisy, cost, descend, network, noisy, ridge, shortest
from laconic.datasets import Split


def examples(n=40, n_inputs=128):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, n_inputs, generator=draw, dtype=torch.float64)
    return Split(inputs, inputs[:, :1] + 0.1 * torch.randn(n, 1, generator=draw, dtype=torch.float64))


def test_there_are_as_many_weights_as_in_the_paper():
    assert N_WEIGHTS == 521
    net = noisy(3)
    still = Noisy(torch.where(torch.arange(len(net.values)) // N_WEIGHTS == 1, -80.0, net.values.detach()))
    inputs = examples().inputs
    assert torch.allclose(still.outputs(inputs).mean, network(3)(inputs)), "no noise, the same network"


def test_the_cost_is_lowered_and_its_gradient_is_right():
    net, split = noisy(0), examples(8)
    found = torch.autograd.grad(cost(net, split, 0.5), net.values)[0]
    step = 1e-6 * found / found.norm()
    sides = [float(cost(Noisy(net.values.detach() + s), split, 0.5)) for s in (step, -step)]
    assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float(found.norm()), rel=1e-5)
    before = float(cost(net, split, 0.5).detach())
    assert descend(lambda: cost(net, split, 0.5), [net.values], 20) == 20
    assert float(cost(net, split, 0.5).detach()) < before - 10


def test_ridge_shrinks_what_least_squares_fits():
    split = examples(60, 5)
    loose, tight = (ridge(split, penalty)(split.inputs) for penalty in (0.0, 1e3))
    x = torch.cat([split.inputs, torch.ones(60, 1, dtype=torch.float64)], 1)
    assert torch.allclose(loose, x @ torch.linalg.lstsq(x, split.targets).solution)
    assert tight.var() < 0.1 * loose.var()


def test_the_shortest_description_is_counted_with_or_without_its_prior():
    row = {
        "methods": {
            "description length, annealed": {"total_bits": 90.0, "prior_bits": 10.0},
            "description length, at once": {"total_bits": 95.0, "prior_bits": 20.0},
            "the training examples' mean": {"total_bits": 85.0},
        }
    }
    assert list(shortest([row], with_prior=True).values()) == [0, 0, 1]
    assert list(shortest([row], with_prior=False).values()) == [0, 1, 0]
