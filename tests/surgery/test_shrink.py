import copy
from collections import OrderedDict

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import laconic
from laconic.errors import MismatchError, UnsupportedError
from laconic.surgery import Bypass, Plan
from tests.surgery.test_conformance import run, step


class Block(nn.Module):
    """A residual block that counts something."""

    def __init__(self):
        super().__init__()
        self.n_heads, self.scale = 4, 0.5
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.scale * self.inner(x)


def network():
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 6, 3),
            norm=nn.BatchNorm2d(6),
            flatten=nn.Flatten(),
            fc=nn.Linear(24, 8),
            block=Block(),
            out=nn.Linear(8, 2),
        )
    )


IMAGES = torch.linspace(-1, 1, 5 * 48).reshape(5, 3, 4, 4)
KEPT = torch.tensor([0, 2, 5])


def plan(**more):
    each = {f"norm.{n}": (6,) for n in ("weight", "bias", "running_mean", "running_var")} | {
        "conv.bias": (6,),
        "conv.weight": (6, 3, 3, 3),
    }
    wide = (KEPT[:, None] * 4 + torch.arange(4)).flatten()
    kept = {name: {0: KEPT} for name in each} | {"fc.weight": {1: wide}}
    return Plan(each | {"fc.weight": (8, 24)}, kept, **more)


def snapshot(model, optimizer=None):
    """Everything that a failure must leave as it was: objects, and their values."""
    tensors = model.state_dict(keep_vars=True)
    objects = {n: id(t) for n, t in tensors.items()}, [id(m) for m in model.modules()]
    attributes = [{k: v for k, v in vars(m).items() if isinstance(v, int | tuple)} for m in model.modules()]
    held = [[id(p) for p in g["params"]] for g in optimizer.param_groups] if optimizer else []
    state = {id(p): {k: id(v) for k, v in s.items()} for p, s in optimizer.state.items()} if optimizer else {}
    return (copy.deepcopy(objects), attributes, held, state, {n: t.detach().clone() for n, t in tensors.items()})


def same(a, b):
    return a[:4] == b[:4] and all(torch.equal(a[4][n], b[4][n]) for n in a[4].keys() | b[4].keys())


def test_modules_have_the_attributes_of_their_tensors():
    small = laconic.shrink(network(), plan())
    assert (small.conv.out_channels, small.norm.num_features, small.fc.in_features) == (3, 3, 12)
    assert "3, 3, kernel_size" in repr(small.conv)
    assert small.norm.num_batches_tracked.ndim == 0


def test_types_formats_flags_and_gradients_are_kept():
    model = network().to(torch.float64).to(memory_format=torch.channels_last)
    model.conv.weight.requires_grad_(False)
    model.norm.weight.grad = torch.arange(6.0, dtype=torch.float64)
    model.norm.weight.weight_decay = 0.5
    small = laconic.shrink(model, plan())
    assert {t.dtype for t in small.parameters()} == {torch.float64}
    assert small.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not small.conv.weight.requires_grad
    assert small.norm.bias.requires_grad
    laconic.surgery.shrink_(model, plan())
    assert model.norm.weight.grad.tolist() == [0, 2, 5]
    assert model.norm.weight.weight_decay == 0.5


def test_the_dense_model_stays():
    model = network()
    before = snapshot(model)
    laconic.shrink(model, plan(bypassed={"block": 0}), IMAGES)
    assert same(before, snapshot(model))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, amsgrad=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1),
        torch.optim.Adagrad,
        torch.optim.Adafactor,
        torch.optim.RMSprop,
    ],
)
def test_the_state_of_optimizers_is_cut_along(make):
    model = network()
    optimizer = make(list(model.parameters()))
    loss = step(model, IMAGES, optimizer)
    before = {n: dict(optimizer.state[p]) for n, p in model.named_parameters()}
    the_plan = plan(bypassed={"block": 0})
    laconic.surgery.shrink_(model, the_plan, optimizer)
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        assert state.keys() == before[name].keys()
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim == parameter.ndim:
                assert torch.equal(value, the_plan.cut(name, before[name][key]))
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    step(model, IMAGES, optimizer)
    assert all(not torch.equal(weights[n], p) for n, p in model.named_parameters())
    assert loss


def test_groups_of_an_optimizer_keep_their_choices():
    model = network()
    groups = [{"params": model.conv.parameters(), "lr": 0.5}, {"params": [*model.block.parameters()], "lr": 0.25}]
    optimizer = torch.optim.SGD(groups, 0.1)
    laconic.surgery.shrink_(model, plan(bypassed={"block": 0}), optimizer)
    assert [(len(g["params"]), g["lr"]) for g in optimizer.param_groups] == [(2, 0.5), (0, 0.25)]
    assert optimizer.param_groups[0]["params"][0] is model.conv.weight


def test_tied_tensors_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    small = laconic.shrink(model, Plan({"0.weight": (4, 4)}, {"0.weight": {1: torch.tensor([1, 2])}}))
    assert small[2].weight is small[0].weight
    assert small[2].in_features == small[0].in_features == 2


BAD_PLANS = {
    "a foreign name": (Plan({"x": (3,)}, {"x": {0: KEPT}}), MismatchError, "x: the plan has it, the model does not"),
    "another shape": (Plan({"conv.bias": (7,)}, {"conv.bias": {0: KEPT}}), MismatchError, r"conv.bias: plan is for \(7,\), tensor is \(6,\)"),
    "an axis too many": (Plan({"conv.bias": (6,)}, {"conv.bias": {1: KEPT}}), MismatchError, "increasing positions along axis 1"),
    "positions beyond": (Plan({"conv.bias": (6,)}, {"conv.bias": {0: KEPT + 1}}), MismatchError, "increasing positions"),
    "negative positions": (Plan({"conv.bias": (6,)}, {"conv.bias": {0: KEPT - 1}}), MismatchError, "increasing positions"),
    "disorder": (Plan({"conv.bias": (6,)}, {"conv.bias": {0: KEPT.flip(0)}}), MismatchError, "increasing positions"),
    "nothing left": (Plan({"conv.bias": (6,)}, {"conv.bias": {0: KEPT[:0]}}), MismatchError, "increasing positions"),
    "a foreign block": (plan(bypassed={"blok": 0}), MismatchError, "'blok': the plan bypasses it"),
    "the model itself": (plan(bypassed={"": 0}), MismatchError, "the model has no such module"),
    "a foreign module": (plan(settings={("blok", "n_heads"): 2}), MismatchError, "blok.n_heads: expected an integer"),
    "a foreign attribute": (plan(settings={("block", "m_heads"): 2}), MismatchError, "found None"),
    "an attribute that is no integer": (plan(settings={("block", "scale"): 1}), MismatchError, r"found 0\.5"),
    "a boolean": (plan(settings={("block", "training"): 1}), MismatchError, "found True"),
    "a method": (plan(settings={("block", "forward"): 1}), MismatchError, "found None"),
    "more heads": (plan(settings={("block", "n_heads"): 5}), MismatchError, "at least 5, found 4"),
    "no heads": (plan(settings={("block", "n_heads"): 0}), MismatchError, "found 4"),
    "half a group": (Plan({"conv.bias": (6,), "conv.weight": (6, 3, 3, 3)}, {n: {0: KEPT} for n in ("conv.bias", "conv.weight")}), UnsupportedError, "does not fit the model: cut, it does not run"),
    "the outputs": (Plan({"out.weight": (2, 8), "out.bias": (2,)}, {n: {0: KEPT[:1]} for n in ("out.weight", "out.bias")}), UnsupportedError, "the shape of the model's outputs"),
    "no residual block": (plan(bypassed={"norm": 0}), UnsupportedError, "outputs differ"),
    "another return": (plan(bypassed={"block": 2}), UnsupportedError, "does not run"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PLANS)
def test_bad_plans_leave_model_and_optimizer_alone(name):
    bad, error, message = BAD_PLANS[name]
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, IMAGES, optimizer)
    before = snapshot(model, optimizer)
    with pytest.raises(error, match=message):
        laconic.surgery.shrink_(model, bad, optimizer, IMAGES)
    assert same(before, snapshot(model, optimizer))


def test_a_state_that_cannot_be_cut_leaves_all_alone():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, IMAGES, optimizer)
    optimizer.state[model.fc.weight]["factors"] = torch.zeros(5, 7)
    before = snapshot(model, optimizer)
    with pytest.raises(
        UnsupportedError, match=r"fc.weight: the optimizer's factors is \(5, 7\), the parameter \(8, 24\)"
    ):
        laconic.surgery.shrink_(model, plan(bypassed={"block": 0}), optimizer)
    assert same(before, snapshot(model, optimizer))


def test_an_optimizer_with_one_state_for_all_is_refused():
    model = network()
    with pytest.raises(UnsupportedError, match="LBFGS: expected a state for each parameter"):
        laconic.surgery.shrink_(model, plan(), torch.optim.LBFGS(model.parameters()))
    assert model.conv.out_channels == 6


class FailsOnce(dict):
    """A state that cannot be refilled at the first attempt."""

    attempts = 0

    def update(self, *args):
        self.attempts += 1
        if self.attempts == 1:
            raise KeyboardInterrupt
        super().update(*args)


def test_a_failure_midway_is_rolled_back():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, IMAGES, optimizer)
    optimizer.state = FailsOnce(optimizer.state)
    before = snapshot(model, optimizer)
    with pytest.raises(KeyboardInterrupt):
        laconic.surgery.shrink_(model, plan(bypassed={"block": 0}), optimizer)
    assert optimizer.state.attempts == 2
    assert same(before, snapshot(model, optimizer))


def test_settings_change_what_they_name():
    small = laconic.shrink(network(), plan(settings={("block", "n_heads"): 2}))
    assert (small.block.n_heads, small.block.scale) == (2, 0.5)


def test_bypasses_return_what_blocks_did():
    x = torch.randn(2, 3)
    assert Bypass()(x, None, mask=1) is x
    assert Bypass()(hidden=x, mask=1) is x
    assert Bypass(1)(x) == (x,)
    assert Bypass(3)(x)[0] is x
    assert Bypass(3)(x)[1:] == (None, None)
    assert not Bypass().state_dict()


def test_wrappers_are_opened_or_refused():
    model = network()
    compiled = torch.compile(model, backend="eager")
    laconic.surgery.shrink_(compiled, plan())
    assert model.conv.out_channels == 3

    class DistributedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(UnsupportedError, match="cut it, then wrap it again"):
        laconic.surgery.shrink_(DistributedDataParallel(network()), plan())


def test_an_optimizer_in_accelerates_wrapper():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    laconic.surgery.shrink_(model, plan(), Accelerator(cpu=True).prepare(optimizer))
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in model.parameters()}


def test_training_and_evaluation_mode_are_kept():
    model = network()
    model.norm.eval()
    small = laconic.shrink(model, plan(bypassed={"block": 0}), IMAGES)
    assert (small.training, small.norm.training) == (True, False)
    assert run(small, IMAGES)
