"""Every rule keeps the same promises, with every optimizer. A new rule is one entry in RULES."""

import copy
import os
import signal
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import laconic
from laconic import Training, attach, train
from laconic.datasets import blobs
from laconic.mdl import NoisyWeights
from laconic.pruning import Pruner
from laconic.pruning.units import Block
from laconic.search import CodeLengthRule
from laconic.training import (
    AtRandom,
    ByGradient,
    DropAndGrow,
    Gates,
    Gradual,
    Hold,
    Proximal,
    Schedule,
    SharedValues,
    VariationalDropout,
)
from laconic.training.checkpoint import load_state, save_state
from laconic.training.schedules import linear, one_shot


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))


def tied_net():
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4))
    model[2].weight = model[0].weight
    return model


def sparse(model, amount=0.75):
    pruner = Pruner(laconic.pruning.criteria.random(1), scope=laconic.pruning.scopes.PerTensor())
    return pruner.at(amount).mask(model)


def observe(needs, model):
    return laconic.model.observe(model, [(torch.ones(4, 20), torch.arange(4))], needs)


def shared(model):
    """A rule for a model whose weights it first makes a few values, most of them zero."""
    rounder = laconic.quantization.Codebook(8)
    laconic.pruning.apply_(model, sparse(model))
    for weight in laconic.model.compressible(model).values():
        found = rounder.rounded(weight.detach())
        weight.data.copy_(found.dequantizer.values[found.q + found.dequantizer.origin].reshape(weight.shape))
    return SharedValues()


GROW = Schedule(0.3, end=18, curve=one_shot, initial=0.3)
RAMP = Schedule(0.8, end=20)
RULES = {
    "hold": lambda model: Hold(sparse(model)),
    "gradual": lambda _: Gradual(RAMP, 5),
    "gradual by movement": lambda _: Gradual(RAMP, 5, Pruner(laconic.pruning.criteria.movement)),
    "gradual by gradient": lambda _: Gradual(RAMP, 5, Pruner(laconic.pruning.criteria.taylor)),
    "gradual by Fisher": lambda _: Gradual(
        RAMP, 5, Pruner(laconic.pruning.criteria.fisher), partial(observe, laconic.pruning.criteria.fisher.needs)
    ),
    "gradual 2:4": lambda _: Gradual(Schedule(0.5, end=20), 5, Pruner(scope=laconic.pruning.scopes.NM(4))),
    "SET": lambda model: DropAndGrow(sparse(model), GROW, AtRandom(), every=4),
    "RigL": lambda model: DropAndGrow(sparse(model), GROW, ByGradient(), every=4),
    "gates": lambda _: Gates(1.0, 1000, lr=0.1),
    "gates of inputs": lambda _: Gates(1.0, 1000, Block(None, 1), lr=0.1),
    "variational": lambda _: VariationalDropout(1000, Schedule(1, end=20, curve=linear), initial=-4.0),
    "noisy weights": lambda _: NoisyWeights(1000, Schedule(1, end=20, curve=linear)),
    "noisy weights, a prior each": lambda _: NoisyWeights(
        1000, lambda _: 1.0, scope=laconic.pruning.scopes.PerTensor()
    ),
    "noisy outputs": lambda _: NoisyWeights(1000, lambda _: 1.0, initial=-4.0, local=True),
    "shorten": lambda _: CodeLengthRule(price=10, n_examples=1000, every=4),
    "shorten with noise first": lambda _: CodeLengthRule(price=10, n_examples=1000, noisy_until=7, every=4),
    "L1": lambda _: Proximal(0.1),
    "share": shared,
    "group lasso": lambda _: Proximal(Schedule(0.1, end=10, curve=linear), Block(1, None)),
}
MASKED = ["hold", "gradual", "gradual by movement", "gradual by gradient", "gradual by Fisher", "SET", "RigL"]
OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
}
every_rule = pytest.mark.parametrize("name", RULES)


def steps(model, optimizer, n=10, begin=0):
    for number in range(begin, begin + n):
        draw = torch.Generator().manual_seed(number)
        inputs = torch.randn(32, 20, generator=draw)
        loss = F.cross_entropy(model(inputs), inputs[:, :4].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def values(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@every_rule
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_it_leaves_model_and_optimizer_as_any_training_does(name, make):
    model = net()
    keys, optimizer = list(model.state_dict()), make(model.parameters())
    with attach(RULES[name](model), model, optimizer) as attached:
        steps(model, optimizer, 25)
        assert attached.step == 25
        mask = attached.mask
        with attached.deterministic() as deterministic:
            expected = values(deterministic)
    assert list(model.state_dict()) == keys
    assert same(values(model), expected), "`deterministic` shows what `remove` leaves"
    for weight, kept in mask.of(model):
        assert not weight[~kept].any()
    if name in MASKED:
        target = 0.75 if name in ("hold", "SET", "RigL") else 0.8
        assert mask.sparsity == pytest.approx(target, abs=0.002)
    parameters = list(model.parameters())
    assert [p for group in optimizer.param_groups for p in group["params"]] == parameters
    assert set(optimizer.state) == set(parameters)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not any(module._forward_hooks for module in model.modules())
    attached.remove()
    assert same(values(model), expected), "removing twice does nothing"


@every_rule
def test_it_does_the_same_again_and_trains_what_stays(name):
    def run():
        model = net()
        optimizer = OPTIMIZERS["adam"](model.parameters())
        with attach(RULES[name](model), model, optimizer) as attached:
            before = values(model)
            torch.manual_seed(0)
            steps(model, optimizer, 12)
            return before, values(model), attached.mask

    before, first, mask = run()
    assert same(first, run()[1])
    assert all((before[n] != first[n])[kept].any() for n, kept in mask.items())


@every_rule
@pytest.mark.parametrize("step", [3, 16])
def test_an_interrupted_training_resumes_to_the_same_bits(name, step, tmp_path):
    def run(checkpoint=None, callbacks=()):
        model = net()
        training = Training(2, partial(torch.optim.SGD, lr=0.05, momentum=0.9))
        train(model, blobs().train.batches(90, shuffle=True), training, [RULES[name](model)], callbacks, checkpoint)
        return values(model)

    def interrupt(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", [interrupt])
    assert same(whole, run(tmp_path / "c"))
    assert same(whole, run(tmp_path / "c")), "a finished run is not repeated"


@every_rule
def test_state_dicts_resume_in_a_loop_of_ones_own(name, tmp_path):
    model = net().eval()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    attached = attach(RULES[name](model), model, optimizer)
    steps(model, optimizer, 7)
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rule": attached.state_dict()}
    save_state(tmp_path / "c", parts)
    steps(model, optimizer, 8, begin=7)

    other = net().eval()
    again = OPTIMIZERS["adam"](other.parameters())
    resumed = attach(RULES[name](other), other, again)
    saved = load_state(tmp_path / "c")
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["rule"])
    steps(other, again, 8, begin=7)
    assert resumed.step == attached.step == 15
    assert same(values(model), values(other))
    attached.remove()
    resumed.remove()
    assert same(values(model), values(other))
    assert len(again.param_groups) == 1


@every_rule
def test_copies_of_the_model_are_plain(name):
    model = net().eval()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    with attach(RULES[name](model), model, optimizer):
        steps(model, optimizer, 3)
        clone = copy.deepcopy(model)
        frozen = values(clone)
        steps(model, optimizer, 5, begin=3)
        assert same(values(clone), frozen)
    other = net().eval()
    again = OPTIMIZERS["momentum"](other.parameters())
    with attach(RULES[name](other), other, again):
        steps(other, again, 8)
    assert same(values(other), values(model)), "copying changes nothing"


@every_rule
def test_it_works_on_a_compiled_model(name):
    def run(wrap):
        model = net().eval()
        wrapped = wrap(model)
        optimizer = OPTIMIZERS["adamw"](wrapped.parameters())
        with attach(RULES[name](model), wrapped, optimizer):
            steps(wrapped, optimizer, 12)
        return values(model)

    assert same(run(lambda model: model), run(partial(torch.compile, backend="eager")))


@every_rule
def test_tied_weights_stay_tied(name):
    model = tied_net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    with attach(RULES[name](model), model, optimizer) as attached:
        steps(model, optimizer, 12)
        assert set(attached.mask) == {"0.weight", "4.weight"}
    assert model[2].weight is model[0].weight


@every_rule
def test_closures_and_what_a_rule_needs_of_gradients(name):
    model = net()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    rule = RULES[name](model)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(4, 20)).square().mean()
        loss.backward()
        return loss

    with attach(rule, model, optimizer):
        if rule.needs_gradients:
            with pytest.raises(laconic.errors.UnsupportedError, match="gradients before the step"):
                optimizer.step(closure)
        else:
            assert optimizer.step(closure) > 0
