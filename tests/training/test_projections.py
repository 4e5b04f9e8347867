from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import laconic
from laconic import attach
from laconic.codec.spec import Method
from laconic.datasets import digits
from laconic.model.selectors import quantized
from laconic.pruning.units import Block, Weight
from laconic.quantization import Codebook
from laconic.training import Proximal, Schedule, SharedValues
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


def one_layer(weight):
    model = nn.Linear(*weight.T.shape, bias=False)
    model.weight.data.copy_(weight)
    return model


WEIGHT = torch.tensor([[1.0, 2.0, 0.0], [2.0, 0.0, 1.0], [2.0, -0.0, -3.0]])


def test_a_shared_values_gradient_is_the_sum_over_its_weights():
    model = one_layer(WEIGHT)
    gradient = torch.randn(3, 3)
    with attach(SharedValues(), model, torch.optim.SGD(model.parameters(), lr=0.1)) as attached:
        model.weight.grad = gradient.clone()
        attached._optimizer.step()
        expected = WEIGHT.clone()
        for value in (1.0, 2.0, -3.0):
            expected[value == WEIGHT] -= 0.1 * gradient[value == WEIGHT].sum()
        assert torch.allclose(model.weight, expected)
        assert not model.weight[WEIGHT == 0].any()
        assert len(model.weight.unique()) == 4


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05),  # its steps go by rows and columns
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_equal_weights_stay_equal_whatever_the_optimizer_remembers(make):
    torch.manual_seed(0)
    model = one_layer(WEIGHT)
    optimizer = make(model.parameters())
    for attached in (False, True):
        if attached:
            model.weight.data.copy_(WEIGHT)  # the optimizer's state is that of weights of their own
        with attach(SharedValues(), model, optimizer) if attached else torch.enable_grad():
            for _ in range(20):
                optimizer.zero_grad()
                model(torch.randn(8, 3)).sub(1).square().mean().backward()
                optimizer.step()
    weight = model.weight.detach()
    assert not weight[WEIGHT == 0].any()
    for value in (1.0, 2.0, -3.0):
        assert len(weight[value == WEIGHT].unique()) == 1
        assert (weight[value == WEIGHT] != value).all()


def test_parameters_without_gradients_are_left_alone():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    before = copy.deepcopy(model[1].state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(SharedValues(), model, optimizer):
        model[0](torch.ones(2, 3)).sum().backward()
        optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in model[1].state_dict().items())


def test_pruned_rounded_and_fine_tuned_is_what_the_file_holds(tmp_path):
    """Deep Compression's pipeline, on handwritten digits."""
    torch.manual_seed(0)
    data = digits()
    batches = data.train.batches(100, shuffle=True)
    model = laconic.zoo.digits_net()
    laconic.train(model, batches, laconic.Training(3))
    laconic.prune_(model, 0.8)
    path = tmp_path / "net.lac"
    laconic.save(model, path, Codebook(16))
    laconic.load(path, into=model)
    rounded = {name: weight.detach().clone() for name, weight in quantized(model).items()}
    assert sum(weight.ndim > 1 for weight in rounded.values()) == 4

    def loss():
        return F.cross_entropy(model(data.train.inputs), data.train.targets).item()

    before, optimizer = loss(), torch.optim.Adam(model.parameters(), lr=1e-3)
    with attach(SharedValues(), model, optimizer):
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    assert loss() < 0.9 * before
    with laconic.file.Reader(path) as reader:
        coded = [name for name, entry in reader.entries.items() if entry.spec.method is Method.CODEBOOK]
    assert {name for name, weight in rounded.items() if weight.ndim > 1} <= {*coded}
    for name, weight in quantized(model).items():
        assert not weight[rounded[name] == 0].any()
        assert name not in coded or len(weight.unique()) <= 16
        assert not torch.equal(weight, rounded[name])
    laconic.save(model, path, Codebook(16))
    decoded = laconic.load(path)
    assert all(torch.equal(decoded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("zeros", [False, True])
def test_weights_of_their_own_train_as_without_it(zeros):
    def run(rules):
        torch.manual_seed(0)
        model = nn.Linear(4, 3, bias=zeros)  # no two weights are equal
        laconic.train(model, [(torch.randn(9, 4), torch.arange(9) % 3)] * 5, laconic.Training(2), rules)
        return model.weight.detach()

    assert torch.equal(run([]), run([SharedValues()]))
