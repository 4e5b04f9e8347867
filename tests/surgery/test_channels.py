"""What tracing refuses, and what it survives."""

import re
import signal
import sys
import threading
import time
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import laconic
from laconic.errors import UnsupportedError
from laconic.surgery import Plan
from tests.surgery.test_conformance import agree, run

X = torch.randn(3, 8)


def mlp():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


def names(coupling):
    return {group.name for group in coupling.groups}


def test_frozen_models_are_cut_like_others():
    model = mlp().requires_grad_(False)
    coupling = laconic.surgery.find_channels(model, X)
    assert names(coupling) == {"0", "2"}
    kept = torch.ones(6, 8, dtype=torch.bool)
    kept[:3] = False
    small = laconic.shrink(model, Plan.of(coupling.groups[:1], {"0.weight": kept}, model), X)
    assert small[0].out_features == 3
    assert not any(p.requires_grad for p in (*small.parameters(), *model.parameters()))


def test_tracing_needs_no_gradients_around_it():
    with torch.no_grad():
        assert names(laconic.surgery.find_channels(mlp(), X)) == {"0", "2"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_of_floats(dtype):
    assert names(laconic.surgery.find_channels(mlp().to(dtype), X.to(dtype))) == {"0", "2"}


class Strict(nn.Module):
    """A forward that runs in float32 alone."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return self.inner(x.float() + torch.zeros(8))


def test_models_that_run_in_one_type_only():
    assert names(laconic.surgery.find_channels(Strict(), X)) == {"inner.0", "inner.2"}


class Custom(nn.Module):
    def __init__(self, forward, **modules):
        super().__init__()
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 2)
        self._forward = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self._forward(self, x)


class RMS(nn.Module):
    """A normalisation by another name."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return self.gain * x / x.square().mean(-1, keepdim=True).sqrt()


REFUSED = {
    "layer norm": (Custom(lambda m, x: m.last(m.n(m.first(x))), n=nn.LayerNorm(6)), "n normalises over it"),
    "group norm": (Custom(lambda m, x: m.last(m.n(m.first(x))), n=nn.GroupNorm(2, 6)), "n normalises over it"),
    "rms norm": (Custom(lambda m, x: m.last(m.n(m.first(x))), n=nn.RMSNorm(6)), "n normalises over it"),
    "a hidden norm": (Custom(lambda m, x: m.last(m.n(m.first(x))), n=RMS()), "outputs differ"),
    "softmax": (Custom(lambda m, x: m.last(m.first(x).softmax(-1))), "outputs differ"),
    "a mean over channels": (Custom(lambda m, x: m.last(m.first(x) - m.first(x).mean(-1, keepdim=True))), "outputs differ"),
    "a hard-coded shape": (Custom(lambda m, x: m.last(m.first(x).view(3, 6).relu())), "does not run"),
    "heads by view": (Custom(lambda m, x: m.last(m.first(x).view(3, -1, 2).flip(-1).flatten(1))), "does not run"),
    "the output": (Custom(lambda m, x: (m.last(m.first(x)), m.first(x))), "shape of the model's outputs"),
    "the input": (Custom(lambda m, x: m.last(m.first(x) + x[:, :6])), "does not run"),
    "an unused layer": (Custom(lambda m, x: m.last(x[:, :6])), "does not reach it"),
    "an unknown layer": (Custom(lambda m, x: m.last(m.n(m.first(x), m.first(x))), n=nn.Bilinear(6, 6, 6)), "reaches n, a Bilinear|outputs differ|does not run"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_cut_would_change_is_refused(name):
    model, reason = REFUSED[name]
    coupling = laconic.surgery.find_channels(model, X)
    assert "first" not in names(coupling)
    assert re.search(reason, coupling.refused["first"])


def test_fixed_statistics_by_channel_are_no_obstacle():
    model = Custom(lambda m, x: m.last(F.normalize(m.n(m.first(x)).relu(), dim=-1)), n=nn.BatchNorm1d(6))
    assert names(laconic.surgery.find_channels(model, X)) == {"first"}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_refused_by_name_and_others_are_not(kind):
    model = Custom(lambda m, x: m.out(m.r(m.last(m.first(x)))[0]), r=kind(2, 4, batch_first=True), out=nn.Linear(4, 2))
    coupling = laconic.surgery.find_channels(model, torch.randn(3, 5, 8))
    assert names(coupling) == {"first"}
    assert coupling.refused["r"].startswith(f"{kind.__name__} packs its weights")
    assert "last" in coupling.refused


def test_filters_with_several_channels_each_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 2, 1))
    coupling = laconic.surgery.find_channels(model, torch.randn(2, 3, 5, 5))
    assert not coupling.groups
    assert "1 has several filters for a channel" in coupling.refused["0"]


def test_channels_that_meet_are_one_member():
    """A gated unit: halves of one layer are multiplied with each other."""
    model = Custom(lambda m, x: m.out(torch.mul(*m.first(x).chunk(2, 1))), out=nn.Linear(3, 2))
    (group,) = laconic.surgery.find_channels(model, X).groups
    assert {part.tensor: part.index.tolist() for part in group.parts} == {
        "first.weight": [[0, 3], [1, 4], [2, 5]],
        "first.bias": [[0, 3], [1, 4], [2, 5]],
        "out.weight": [[0], [1], [2]],
    }


class Slow(nn.Module):
    """A forward whose trace does not end; it catches what it can."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        try:
            for _ in range(2000):
                time.sleep(0.01)
        except Exception:
            return self.fc(x)
        return self.fc(x)


@pytest.mark.parametrize(
    "trace", [laconic.surgery.find_channels, laconic.surgery.find_heads, laconic.surgery.find_residual_blocks]
)
def test_tracing_ends_after_its_time(trace):
    with pytest.raises(UnsupportedError, match="Slow: tracing did not end within 0.05 seconds"):
        trace(Slow(), X, seconds=0.05)


def test_tracing_ends_after_its_time_in_another_thread():
    caught = []

    def work():
        try:
            laconic.surgery.find_channels(Slow(), X, seconds=0.05)
        except UnsupportedError as error:
            caught.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(15)
    assert caught == ["Slow: tracing did not end within 0.05 seconds"]


def test_another_thread_in_time():
    found = []
    thread = threading.Thread(target=lambda: found.append(laconic.surgery.find_channels(mlp(), X)))
    thread.start()
    thread.join()
    assert names(found[0]) == {"0", "2"}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals")
def test_a_timer_that_ran_before_runs_on():
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    before = signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        laconic.surgery.find_channels(mlp(), X)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, previous)


def old_weight_norm():
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 2)))


FAILING = {
    "a forward that fails": (Custom(lambda m, x: m.last(x)), "Custom: tracing failed: RuntimeError: mat1"),
    "an output that is not finite": (Custom(lambda m, x: m.last(m.first(x)) / 0), "expected finite outputs"),
    "no output": (Custom(lambda m, x: None), "expected outputs with floating tensors, found none"),
    "lazy layers": (nn.Sequential(nn.LazyLinear(3)), "0.weight: not initialised yet"),
    "parametrisations": (nn.utils.parametrizations.weight_norm(nn.Linear(8, 2)), "found parametrisations"),
    "old weight norm": (old_weight_norm(), "cannot be copied"),
}


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize(
    "trace", [laconic.surgery.find_channels, laconic.surgery.find_heads, laconic.surgery.find_residual_blocks]
)
def test_failures_have_names(trace, name):
    model, message = FAILING[name]
    with pytest.raises(UnsupportedError, match=message):
        trace(model, X)


def test_without_torch_pruning_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r'pip install "laconic-nn\[surgery\]"'):
        laconic.surgery.find_channels(mlp(), X)


def test_inputs_by_position_and_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x, scale):
            return {"y": (self.inner(x) * scale, scale)}

    scale = torch.tensor(2.0)
    for inputs in ((X, scale), [X, scale], {"x": X, "scale": scale}):
        assert names(laconic.surgery.find_channels(Two(), inputs)) == {"inner.0", "inner.2"}


def test_a_wrong_coupling_does_not_pass_the_trial():
    """The trial decides: here by a group that pairs the wrong channels, in a network of equal numbers."""
    from laconic.surgery.verify import sandboxed, sift

    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    right = laconic.surgery.find_channels(model, X).groups[0]
    parts = [
        laconic.surgery.Part(p.tensor, p.axis, p.index.flip(0) if p.tensor == "1.weight" else p.index)
        for p in right.parts
    ]
    wrong = laconic.surgery.Group("wrong", tuple(parts))
    with sandboxed(model, X, 60) as (copied, inputs):
        accepted, refused = sift(copied, inputs, [right])
        assert (accepted, refused) == ([right], {})
        accepted, refused = sift(copied, inputs, [wrong])
        assert not accepted
        assert "outputs differ" in refused["wrong"]


def test_cut_and_masked_agree_where_zero_is_not_what_zero_gives():
    """A sigmoid of nothing is a half; the column that reads it is zero as well."""
    model = nn.Sequential(nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 2))
    coupling = laconic.surgery.find_channels(model, X)
    mask = {"0.weight": torch.arange(6)[:, None].expand(6, 8) > 2, "2.weight": torch.arange(6).expand(2, 6) > 2}
    small = laconic.shrink(model, Plan.of(coupling, mask, model), X)
    laconic.pruning.apply_(model, laconic.pruning.Mask(mask))
    assert agree(run(model, X), run(small, X))
