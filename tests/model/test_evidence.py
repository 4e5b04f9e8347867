"""Each statistic equals what its formula gives when computed the long way round."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import laconic
from laconic.errors import MismatchError, UnsupportedError
from laconic.model.evidence import (
    FISHER,
    GRADIENT,
    GRAM,
    MOVEMENT,
    NORM,
    SENSITIVITY,
    Statistic,
    observe,
    sampled_labels,
    unfold,
)
from tests.support.nets import net_and_evidence


def gradients_by_case(model, batches):
    model = copy.deepcopy(model).eval()
    parameters = dict(model.named_parameters())
    for inputs, targets in batches:
        for x, y in zip(inputs, targets, strict=True):
            loss = F.cross_entropy(model(x[None]), y[None])
            yield dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def test_gradients_and_fisher_are_means_over_cases():
    model, evidence, batches = net_and_evidence()
    cases = list(gradients_by_case(model, batches))
    assert evidence.n == len(cases) == 32
    for name in ("grouped.weight", "conv1.weight", "fc1.weight", "head.bias", "bn.weight"):
        stack = torch.stack([case[name] for case in cases])
        assert torch.allclose(evidence.of(GRADIENT, name), stack.mean(0), atol=1e-6)
        assert torch.allclose(evidence.of(FISHER, name), stack.square().mean(0), atol=1e-7)


@pytest.mark.parametrize("name", ["grouped", "conv1", "conv2", "head"])
def test_a_layer_is_its_weight_times_its_unfolded_inputs(name):
    model, _, batches = net_and_evidence()
    layer = model.get_submodule(name)
    seen = []
    handle = layer.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    model.eval()(batches[0][0])
    handle.remove()
    inputs, output = seen[0]
    patches = unfold(layer, inputs)
    rows = layer.weight.reshape(len(patches), -1, patches.shape[2])
    product = (patches @ rows.mT).movedim(0, 1).flatten(1)  # positions, outputs
    bias = 0 if layer.bias is None else layer.bias
    expected = output.movedim(1, -1).reshape(-1, layer.weight.shape[0])
    assert torch.allclose(product + bias, expected, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(3, 5, (3, 2), dilation=(2, 1), padding=(1, 0)),
        nn.Conv2d(3, 5, 3, padding="same", padding_mode="reflect"),
        nn.Conv3d(2, 3, 2),
        nn.Linear(7, 3),
    ],
    ids=str,
)
def test_unfolding_knows_every_convolution(layer):
    shape = {nn.Conv1d: (2, 4, 9), nn.Conv2d: (2, 3, 8, 8), nn.Conv3d: (2, 2, 4, 4, 4), nn.Linear: (2, 5, 7)}
    inputs = torch.randn(shape[type(layer)])
    patches = unfold(layer, inputs)
    rows = layer.weight.reshape(len(patches), -1, patches.shape[2])
    product = (patches @ rows.mT).movedim(0, 1).flatten(1) + layer.bias
    output = layer(inputs)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    assert torch.allclose(product, output.movedim(axis, -1).reshape(product.shape), atol=1e-5)


def test_grams_norms_and_sensitivities_of_a_linear_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    batches = [(torch.randn(6, 5), torch.randint(0, 3, (6,))) for _ in range(2)]
    evidence = observe(model, batches, [GRAM, NORM, SENSITIVITY])
    x = torch.cat([inputs for inputs, _ in batches])
    assert torch.allclose(evidence.of(GRAM, "0.weight")[0], x.T @ x / 12, atol=1e-6)
    assert torch.allclose(evidence.of(NORM, "0.weight"), x.norm(dim=0)[None], atol=1e-5)
    y = torch.cat([targets for _, targets in batches])
    hidden = model[0](x).detach().requires_grad_()
    F.cross_entropy(model[2](hidden.tanh()), y, reduction="sum").backward()
    assert torch.allclose(evidence.of(SENSITIVITY, "0.weight"), hidden.grad.square().mean(0), atol=1e-7)


def test_a_shared_weight_adds_up_what_all_its_layers_see():
    model, evidence, batches = net_and_evidence()
    seen = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for layer in (model.fc1, model.fc2)
    ]
    for inputs, _ in batches:
        model.eval()(inputs)
    for handle in handles:
        handle.remove()
    x = torch.cat(seen)
    assert torch.allclose(evidence.of(GRAM, "fc1.weight")[0], x.T @ x / 32, atol=1e-4)


def test_observing_leaves_no_trace():
    model, _, batches = net_and_evidence()
    model = copy.deepcopy(model).train()
    model.bn.eval()
    model.fc1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    observe(model, batches, set(Statistic) - {MOVEMENT})
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert not model.bn.training
    assert not model.fc1.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_frozen_models_are_observed():
    model, evidence, batches = net_and_evidence()
    frozen = copy.deepcopy(model).requires_grad_(False)
    found = observe(frozen, batches, [GRADIENT])
    assert torch.allclose(found.of(GRADIENT, "conv1.weight"), evidence.of(GRADIENT, "conv1.weight"), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_models_that_take_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, left, right):
            return self.a(left) + self.b(input=right)

    left, right, targets = torch.randn(4, 3), torch.randn(4, 3), torch.randint(0, 2, (4,))
    by_position = observe(Two(), [((left, right), targets)], [NORM, FISHER])
    by_name = observe(Two(), [({"left": left, "right": right}, targets)], [NORM, FISHER])
    assert torch.allclose(by_position.of(NORM, "b.weight")[0], right.norm(dim=0))
    assert torch.equal(by_position.of(NORM, "b.weight"), by_name.of(NORM, "b.weight"))


def test_sampled_labels_give_the_fisher_matrix():
    torch.manual_seed(0)
    logits = torch.randn(1, 3).repeat(20_000, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(sampled_labels(logits, None) * len(logits), logits)
    p = logits[0].softmax(0).detach()
    assert torch.allclose(gradient.square().mean(0), p * (1 - p), atol=0.01)


def test_bad_requests_are_named():
    model, _, batches = net_and_evidence()
    with pytest.raises(MismatchError, match="MOVEMENT comes from training"):
        observe(model, batches, [MOVEMENT])
    with pytest.raises(MismatchError, match="found none"):
        observe(model, [], [NORM])
    with pytest.raises(MismatchError, match="bn.weight: expected its NORM"):
        observe(model, batches, [NORM]).of(NORM, "bn.weight")
    with pytest.raises(UnsupportedError, match="up: .*ConvTranspose1d"):
        unfold(nn.ConvTranspose1d(2, 2, 1), torch.randn(1, 2, 2), "up")
    assert observe(model, batches, []) == laconic.model.Evidence()
