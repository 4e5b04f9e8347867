import pytest
import torch
from torch import nn

import laconic
from laconic import attach
from laconic.pruning.units import Block, Weight
from laconic.training import Proximal, Schedule
from laconic.training.rules import StepContext
from laconic.training.schedules import linear


def after(weight, rule, lr=0.5, step=1):
    model = nn.Linear(*weight.T.shape, bias=False)
    model.weight.data.copy_(weight)
    with torch.no_grad():
        rule.update({}, StepContext(model, torch.optim.SGD(model.parameters(), lr=lr), step))
    return model.weight.detach()


def test_soft_thresholding():
    weight = torch.tensor([[3.0, -1.0, 0.2, -0.1, 0.0]])
    found = after(weight, Proximal(0.4))
    assert torch.allclose(found, weight.sign() * (weight.abs() - 0.5 * 0.4).clamp(min=0))
    assert found[0, 2:].tolist() == [0, 0, 0], "exactly zero at the threshold and below"
    assert torch.equal(after(weight, Proximal(0.0)), weight)


@pytest.mark.parametrize("unit", [Weight(), Block(1, None), Block(None, 1), Block(2, 2)])
def test_it_is_the_minimum_it_claims_to_be(unit):
    """argmin over v of ½‖v − w‖² + ηλ Σ √n_g‖v_g‖: nothing nearby is lower."""
    weight = torch.randn(6, 4).double() * 0.5
    members = {"w": torch.arange(24.0).view(6, 4)}
    group = unit.spread(
        {"w": torch.arange(unit.pool(members)["w"].numel()).view(unit.pool(members)["w"].shape)}, members
    )
    found = after(weight.float(), Proximal(0.8, unit)).double()

    def objective(v):
        penalty = sum((group["w"] == g).sum().sqrt() * v[group["w"] == g].norm() for g in group["w"].unique())
        return (v - weight).square().sum() / 2 + 0.5 * 0.8 * penalty

    lowest = objective(found)
    for _ in range(200):
        assert objective(found + 1e-3 * torch.randn(6, 4)) >= lowest - 1e-7


def test_the_threshold_follows_each_groups_learning_rate_and_the_schedule():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 1.0}], lr=0.5
    )
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    with attach(Proximal(Schedule(0.4, end=2, curve=linear)), model, optimizer):
        optimizer.step()
        assert model[0].weight[0, 0].item() == pytest.approx(1 - 0.1 * 0.2)
        optimizer.param_groups[0]["lr"] = 0.5
        optimizer.step()
    assert model[0].weight[0, 0].item() == pytest.approx(1 - 0.1 * 0.2 - 0.5 * 0.4)
    assert model[1].weight[0, 0].item() == pytest.approx(1 - 0.2 - 0.4)
    assert model[0].bias[0].item() == 1


def test_weights_that_the_optimizer_lacks_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(laconic.errors.MismatchError, match=r"1.weight: expected among the optimizer's"):
        attach(Proximal(0.1), model, torch.optim.SGD(model[0].parameters(), lr=0.1))
