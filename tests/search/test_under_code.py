import math

import pytest
import torch
from torch import nn

import laconic
from laconic import Training, attach, zoo
from laconic.coding.stream import prices
from laconic.datasets import blobs
from laconic.quantization.grid import Grid, exactly
from laconic.search import CodeLengthRule
from laconic.training import Schedule
from laconic.training.schedules import exponential
from tests.support.layouts import in_rows


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    data, model = blobs(), zoo.blobs_net()
    laconic.train(model, data.train.batches(50, shuffle=True), Training(20))
    return data, model.state_dict()


def shortened(trained, path, **choices):
    data, state = trained
    model = zoo.blobs_net()
    model.load_state_dict(state)
    rule = CodeLengthRule(**{"n_examples": len(data.train), "every": 10, "lr": 1e-2, **choices})
    laconic.train(model, data.train.batches(50, shuffle=True), Training(20), [rule])
    return model, laconic.save(model, path, None)


def test_files_grow_with_the_price_and_data_bits_fall(trained, tmp_path):
    data = trained[0]
    found = {}
    for price in (0.1, 0.3, 3.0):
        model, n_bytes = shortened(trained, tmp_path / "net.lac", price=price)
        found[price] = n_bytes, laconic.evaluate(model, data.train.batches()).bits
    n_bytes, bits = zip(*found.values(), strict=True)
    assert n_bytes[0] < n_bytes[1] < n_bytes[2]
    assert bits[0] > bits[1] > bits[2]


FALLING = Schedule(3.0, 100, exponential, 30.0)


@pytest.mark.parametrize(
    "more", [{}, {"noisy_until": 100}, {"price": FALLING}], ids=["at once", "after noise", "a price that falls"]
)
def test_what_it_leaves_is_on_grids_and_saved_as_it_is(trained, tmp_path, more):
    model, n_bytes = shortened(trained, tmp_path / "net.lac", **{"price": 3.0, **more})
    for parameter in model.parameters():
        found = exactly(parameter.detach())
        assert found is not None and found.dequantizer.scale == torch.tensor(found.dequantizer.scale).bfloat16().item()
    decoded = laconic.load(tmp_path / "net.lac")
    assert all(torch.equal(decoded[name], tensor) for name, tensor in model.state_dict().items())
    assert n_bytes < 0.15 * sum(4 * p.numel() for p in model.parameters())


def net_on_a_grid():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(30, 40))
    with torch.no_grad():
        model[0].weight.copy_(0.25 * (torch.randn(40, 30) * 1.2).round().clamp(-2, 2))
        model[0].bias.copy_(0.5 * torch.arange(-20, 20))
    return model


def test_the_penalty_is_the_price_of_the_integers():
    model = net_on_a_grid()
    rule = CodeLengthRule(price=4.0, n_examples=100)
    state = attach(rule, model, torch.optim.SGD(model.parameters(), lr=0.1)).state

    def between(table, magnitude):  # what integers of its length cost, and of the next, in proportion
        length = magnitude.bit_length()
        below = 2 ** (length - 1) if length else 0
        low, high = float(table[length]), float(table[length + 1])
        return low + (magnitude - below) / max(below, 1) * (high - low)

    bits = 0.0
    for tensor, step, n_rows in ((model[0].weight, 0.25, 40), (model[0].bias, 0.5, 1)):
        q = (tensor.detach() / step).int().flatten().numpy()
        found = prices(q, in_rows(q.size, n_rows), 17)
        tables = found.tables[found.index]
        bits += sum(between(table, abs(int(value))) for table, value in zip(tables, q, strict=True))
    assert rule.cost(state, 0).item() == pytest.approx(math.log(2) / 400 * bits, rel=1e-5)


def test_gradients_go_straight_to_weights_and_by_the_rounding_to_steps():
    model = net_on_a_grid()
    rule = CodeLengthRule(price=math.inf, n_examples=1)
    state = attach(rule, model, torch.optim.SGD(model.parameters(), lr=0.1)).state
    mean = (state["means"]["0.weight"] + 0.1 * torch.rand(40, 30) - 0.05).requires_grad_()
    state = {**state, "means": {**state["means"], "0.weight": mean}}
    sample = rule.sample(state, 5)["0.weight"]
    assert torch.equal(sample, 0.25 * (mean / 0.25).round())
    weights = torch.randn(40, 30)
    log_step = state["trained"]["0.weight"]
    to_mean, to_step = torch.autograd.grad((weights * sample).sum(), [mean, log_step])
    torch.testing.assert_close(to_mean, weights)
    moved = weights * (sample - mean)
    torch.testing.assert_close(to_step, moved.sum() / math.sqrt(mean.numel()), rtol=1e-4, atol=1e-5)


def test_steps_begin_where_tensors_are_and_else_at_the_first_grid():
    model = net_on_a_grid()
    model.append(nn.Linear(40, 5))
    nn.init.zeros_(model[1].bias)
    start = CodeLengthRule(price=1.0, n_examples=1, first=Grid(0.2)).start(
        {n: p.detach() for n, p in model.named_parameters()}
    )
    steps = {name: float(log_step.exp()) for name, log_step in start.items()}
    assert steps["0.weight"] == pytest.approx(0.25) and steps["0.bias"] == pytest.approx(0.5)
    weight = model[1].weight.detach()
    rounded = steps["1.weight"] * (weight / steps["1.weight"]).round()
    assert 0.01 < (rounded - weight).norm() / weight.norm() <= 0.2
    assert steps["1.bias"] > 0
