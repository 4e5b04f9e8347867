import os
import random
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import laconic
from laconic import LaconicError, Training, train
from laconic.datasets import blobs
from laconic.errors import FormatError
from laconic.model import Objective
from laconic.training import Hold
from laconic.training.checkpoint import load_state, save_state


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.3), nn.Linear(30, 3))


def batches():
    return blobs().train.batches(100, shuffle=True)


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)


CHOICES = {
    "adam": {},
    "momentum": {"optimizer": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3)},
    "scheduled": {"scheduler": cosine},
}


def run(checkpoint=None, callbacks=(), rules=(), **choices):
    model = net()
    progress = train(model, batches(), Training(epochs=6, **choices), rules, callbacks, checkpoint)
    return model, progress


def interrupt_at(step):
    def callback(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def test_it_learns_and_keeps_count():
    model, progress = run()
    assert progress.history[-1]["accuracy"] > 0.95
    assert progress.history[-1]["loss"] < progress.history[0]["loss"]
    assert (progress.epoch, progress.batch, progress.step, progress.n_steps) == (6, 0, 60, 60)
    assert laconic.evaluate(model, blobs().test.batches()).accuracy > 0.95


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("step", [1, 17, 20, 59])
def test_an_interrupted_run_resumes_to_the_same_bits(choice, step, tmp_path):
    whole, history = run(**CHOICES[choice])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", [interrupt_at(step)], **CHOICES[choice])
    resumed, progress = run(tmp_path / "c", **CHOICES[choice])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert progress.history == history.history
    assert progress.step == 60


def test_a_finished_run_is_not_repeated(tmp_path):
    first, _ = run(tmp_path / "c")
    steps = []
    again, _ = run(tmp_path / "c", [steps.append])
    assert not steps
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_rules_resume_with_the_run(tmp_path):
    rule = laconic.training.Gradual(laconic.training.Schedule(0.8, end=40), every=10)
    whole, _ = run(rules=[rule])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", [interrupt_at(25)], [rule])
    resumed, _ = run(tmp_path / "c", rules=[rule])
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    weights = laconic.model.compressible(whole).values()
    assert 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights) == pytest.approx(
        0.8, abs=0.01
    )


def test_held_weights_stay_zero():
    model = net()
    mask = laconic.prune_(model, 0.9, scope=laconic.pruning.scopes.PerTensor())
    train(model, batches(), Training(epochs=1), [Hold(mask)])
    assert all(not p[~mask[n]].any() for n, p in laconic.model.compressible(model).items())


def test_frozen_parameters_do_not_move():
    model = net()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    train(model, batches(), Training(epochs=1))
    assert torch.equal(before, model[0].weight)


def test_any_iterable_of_batches_and_a_loss_without_classes():
    model = nn.Linear(4, 1)
    data = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(3)]
    progress = train(model, data, Training(2, objective=Objective(nn.functional.mse_loss)))
    assert "accuracy" not in progress.history[-1]
    assert progress.history[-1]["loss"] < progress.history[0]["loss"]


def test_a_generator_that_has_run_is_refused():
    once = iter([(torch.randn(8, 20), torch.randint(0, 3, (8,)))])
    with pytest.raises(ValueError, match="runs only once"):
        train(net(), once, Training(epochs=2))


def test_the_bar_draws_on_a_terminal(capsys):
    from rich.console import Console

    console = Console(force_terminal=True, width=100)
    with laconic.training.ProgressBar("dense", console) as bar:
        train(net(), batches(), Training(epochs=2), callbacks=[bar])
    drawn = capsys.readouterr().out
    assert all(word in drawn for word in ("dense", "20/20", "loss", "acc", "sparsity"))


def test_checkpoints_hold_nested_state_and_nothing_else(tmp_path):
    state = {"a": [1, 2.5, None, True, "x"], "t": {0: torch.arange(3), "b": torch.ones(2).bool()}}
    save_state(tmp_path / "s", state)
    back = load_state(tmp_path / "s")
    assert back["a"] == state["a"]
    assert torch.equal(back["t"][0], state["t"][0])
    assert torch.equal(back["t"]["b"], state["t"]["b"])
    with pytest.raises(TypeError, match="found object"):
        save_state(tmp_path / "s", {"a": object()})
    assert load_state(tmp_path / "s")["a"] == state["a"]
    (tmp_path / "s").write_bytes(b"not a checkpoint")
    with pytest.raises(FormatError, match="expected a training checkpoint"):
        load_state(tmp_path / "s")


def test_nothing_of_the_process_or_the_models_modes_is_changed():
    model = net()
    model[1].eval()
    mean = model[1].running_mean.clone()
    np.random.seed(2)
    torch.manual_seed(3)
    drawn = np.random.rand(), torch.rand(2)
    np.random.seed(2)
    torch.manual_seed(3)
    train(model, batches(), Training(1))
    assert np.random.rand() == drawn[0]
    assert torch.equal(torch.rand(2), drawn[1])
    assert random.random() != random.Random(0).random(), "the seed of training; the tests' type checks draw as well"
    assert [module.training for module in model] == [True, False, True, True, True]
    assert torch.equal(model[1].running_mean, mean), "a frozen norm keeps its statistics"
    with pytest.raises(RuntimeError):
        train(model.eval(), [(torch.randn(4, 7), torch.zeros(4))], Training(1))
    assert not any(module.training for module in model.modules())


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=2 * len(batches()))


def test_schedulers_of_steps_and_of_losses():
    rates = []

    def note(progress):
        rates.append(optimizers[0].param_groups[0]["lr"])

    optimizers = []

    def remembered(parameters):
        optimizers.append(torch.optim.SGD(parameters, lr=0.1))
        return optimizers[0]

    train(net(), batches(), Training(2, remembered, scheduler=one_cycle, per_step=True), callbacks=[note])
    assert rates[-1] < rates[0] < max(rates)
    assert len(set(rates)) > len(batches())
    optimizers.clear()
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10.0)
    train(net(), batches(), Training(4, remembered, scheduler=plateau))
    assert optimizers[0].param_groups[0]["lr"] < 0.1


S = torch.optim.lr_scheduler


def cyclic(optimizer):
    return S.CyclicLR(optimizer, 0.01, 0.1, cycle_momentum=False)


class NeedsLoss(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


def of_others(_):
    return torch.optim.SGD(net().parameters(), lr=0.1)


REFUSED_LOOPS = {
    "steps in a chain": (
        Training(1, scheduler=lambda o: S.ChainedScheduler([S.ExponentialLR(o, 0.9), cyclic(o)])),
        "CyclicLR counts steps",
    ),
    "steps in a sequence": (
        Training(1, scheduler=lambda o: S.SequentialLR(o, [S.ConstantLR(o), one_cycle(o)], [1])),
        "OneCycleLR counts steps",
    ),
    "losses of steps": (Training(1, scheduler=S.ReduceLROnPlateau, per_step=True), "reads each epoch's loss; pass it"),
    "another optimizer's": (Training(1, scheduler=lambda o: cosine(of_others(o))), "found one of another"),
    "no scheduler": (
        Training(1, scheduler=lambda o: 3),
        "scheduler: expected a function that returns one, found a int",
    ),
    "a closure": (Training(1, NeedsLoss), "NeedsLoss evaluates the loss several times a step"),
    "other parameters": (Training(1, of_others), "expected one of the parameters that are passed to it"),
    "no optimizer": (Training(1, lambda p: None), "optimizer: expected a function that returns one, found none"),
    "several optimizers": (Training(1, lambda p: [torch.optim.SGD(p, lr=1)]), "that returns one, found a list"),
    "steps by epochs": (Training(1, scheduler=one_cycle), "OneCycleLR counts steps, not epochs; pass per_step=True"),
    "LBFGS": (Training(1, torch.optim.LBFGS), "LBFGS evaluates the loss several times a step"),
}


@pytest.mark.parametrize("kind", REFUSED_LOOPS)
def test_loops_that_do_not_fit_are_refused_by_name(kind):
    training, message = REFUSED_LOOPS[kind]
    with pytest.raises(LaconicError, match=message):
        train(net(), batches(), training)


TAKEN = {
    "warm restarts": {"scheduler": lambda o: S.CosineAnnealingWarmRestarts(o, 2)},
    "a chain": {"scheduler": lambda o: S.ChainedScheduler([S.ConstantLR(o), S.ExponentialLR(o, 0.9)])},
    "a sequence": {"scheduler": lambda o: S.SequentialLR(o, [S.ConstantLR(o), S.LambdaLR(o, lambda e: 0.9)], [1])},
    "cycles": {"scheduler": cyclic, "per_step": True},
    "averages": {"scheduler": lambda o: torch.optim.swa_utils.SWALR(o, 0.05)},
    "Rprop": {"optimizer": torch.optim.Rprop},
    "all at once": {"optimizer": lambda p: torch.optim.Adam(p, foreach=True)},
    "fused": {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1, fused=True)},
    "some parameters": {"optimizer": lambda p: torch.optim.SGD([*p][:1], lr=0.1)},
}


@pytest.mark.parametrize("kind", TAKEN)
def test_optimizers_and_schedulers_of_other_kinds_are_taken(kind):
    model = net()
    train(model, batches(), Training(2, **TAKEN[kind]))
    assert not torch.equal(model[0].weight, net()[0].weight)


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(LaconicError, match="model: expected parameters that require gradients, found none"):
        train(net().requires_grad_(False), batches(), Training(1))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_on_while_it_trains(mode):
    model = net()
    with mode():
        assert len(train(model, batches(), Training(1)).history) == 1
        assert not torch.is_grad_enabled()


def test_nothing_is_left_on_the_model():
    """A mark would keep Accelerate from preparing the model in a loop of the user's."""
    model = net()
    before = set(vars(model))
    train(model, batches(), Training(1))
    assert set(vars(model)) == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_importing_it_draws_nothing():
    code = "import random; a = random.getstate(); import laconic; laconic.train; assert random.getstate() == a"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dict_batches_of_a_model_with_its_own_loss():
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=40, num_labels=2
    )
    model = transformers.BertForSequenceClassification(config)
    ids = torch.randint(0, 40, (16, 6))
    data = [{"input_ids": ids, "labels": ids[:, 0] % 2}]
    progress = train(model, data, Training(20, lambda p: torch.optim.Adam(p, lr=0.01)))
    assert progress.history[-1]["loss"] < progress.history[0]["loss"]
    assert progress.history[-1]["accuracy"] > 0.9
