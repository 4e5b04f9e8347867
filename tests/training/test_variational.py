import pytest
import torch
from torch import nn
from torch.nn import functional as F

from laconic import attach
from laconic.training import Schedule, VariationalDropout
from laconic.training.schedules import one_shot
from laconic.training.variational import kl_nats, log_alphas
from tests.support.nets import fitted_to_two_of_eight_inputs

AT_ONCE = Schedule(1, end=0, curve=one_shot)


def test_the_divergence_is_the_integral_it_stands_for():
    """KL = E[log|1 + √α ε|] − ½ log α + C (Kingma et al. 2015), with C such that it is 0 at α = ∞."""
    epsilon = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(400_000).double() + 0.5) / 400_000)
    for log_alpha in (-6.0, -2.0, 0.0, 1.0, 3.0):
        alpha = torch.tensor(log_alpha).double().exp()
        mean = torch.log((1 + alpha.sqrt() * epsilon).abs()).mean() - 0.5 * log_alpha
        limit = torch.log(epsilon.abs()).mean()
        assert float(kl_nats(torch.tensor(log_alpha))) == pytest.approx(float(mean - limit), abs=0.01)


def test_gradients_are_those_of_the_bound():
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    inputs, targets = torch.randn(7, 5).double(), torch.randint(0, 3, (7,))
    rule = VariationalDropout(20, AT_ONCE, initial=-2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    attached = attach(rule, model, optimizer)
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    theta = attached.state["means"]["weight"].clone().requires_grad_()
    log_variance = torch.full((3, 5), -2.0).double().requires_grad_()
    noise = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))  # seed 0, step 0
    drawn = theta + torch.exp(log_variance / 2) * noise
    nats = kl_nats(log_variance - torch.log(theta**2)).sum()
    loss = F.cross_entropy(F.linear(inputs, drawn, model.bias), targets) + nats / 20
    expected = torch.autograd.grad(loss, [theta, log_variance])
    assert torch.allclose(model.weight.grad, expected[0])
    assert torch.allclose(attached.state["trained"]["weight"].grad, expected[1])


def test_pairs_of_steps_share_a_draw_with_opposite_signs():
    rule = VariationalDropout(20, AT_ONCE)
    means, trained = {"w": torch.zeros(4, 4)}, {"w": torch.zeros(4, 4)}
    drawn = [rule.sample({"means": means, "trained": trained}, step)["w"] for step in range(4)]
    assert torch.equal(drawn[0], -drawn[1])
    assert torch.equal(drawn[2], -drawn[3])
    assert not torch.equal(drawn[0], drawn[2])


def test_weights_of_pure_noise_go():
    rule = VariationalDropout(20, AT_ONCE)
    means = {"w": torch.tensor([1.0, 0.1, 0.0])}
    trained = {"w": torch.zeros(3)}  # log α = 0, 4.6, ∞
    assert log_alphas(means, trained)["w"][:2].tolist() == pytest.approx([0, 4.605], abs=1e-3)
    assert rule.deterministic({"means": means, "trained": trained})["w"].tolist() == [1, 0, 0]


def test_what_the_data_do_not_need_becomes_noise():
    rule = VariationalDropout(256, AT_ONCE, initial=-4.0)
    with fitted_to_two_of_eight_inputs(rule, 600, loss_weight=10) as (_, attached, _):
        pass
    assert attached.mask["weight"].tolist() == [[True, True] + [False] * 6]
