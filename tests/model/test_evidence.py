"""Each statistic equals what its formula gives when computed the long way round."""

import copy

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import laconic
from laconic.errors import MismatchError
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


@pytest.mark.parametrize(("shape", "last"), [((4, 3), False), ((4, 7, 3), True), ((4, 3, 5, 6), False)])
def test_labels_are_sampled_of_every_position_that_counts(shape, last):
    logits = torch.zeros(shape)
    targets = torch.zeros(shape[:-1] if last or len(shape) == 2 else (shape[0], *shape[2:]), dtype=torch.int64)
    targets.view(-1)[0] = -100
    logits.requires_grad_()
    sampled_labels(logits, targets).sum().backward()
    sums = logits.grad.abs().sum(-1 if last else 1).flatten()
    assert sums[0] == 0 and (sums[1:] > 0).all()


def test_sampled_labels_give_the_fisher_matrix():
    torch.manual_seed(0)
    logits = torch.randn(1, 3).repeat(20_000, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(sampled_labels(logits, None).sum(), logits)
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
    assert observe(model, batches, []) == laconic.model.Evidence()


def test_a_weight_that_lies_as_inputs_by_rows_has_the_same_evidence():
    """As transformers' Conv1D: the same layer both ways."""
    torch.manual_seed(0)
    straight = nn.Linear(4, 3)
    across = transformers.pytorch_utils.Conv1D(3, 4)
    across.weight.data, across.bias.data = straight.weight.data.T.contiguous(), straight.bias.data
    batches = [(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))]
    ours, theirs = (observe(m, batches, [GRAM, NORM, SENSITIVITY]) for m in (across, straight))
    for statistic in (GRAM, SENSITIVITY):
        assert torch.allclose(ours.of(statistic, "weight"), theirs.of(statistic, "weight"))
    assert torch.allclose(ours.of(NORM, "weight"), theirs.of(NORM, "weight").T.expand(4, 3))
    rows = ours.rows("weight", across.weight)
    assert torch.equal(rows[0], straight.weight)
    assert torch.equal(ours.form("weight").weight(rows, across.weight.shape), across.weight)


def test_the_order_in_memory_of_a_convolutions_weights_does_not_matter():
    torch.manual_seed(0)
    usual = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.Flatten(), nn.Linear(45, 3))
    last = copy.deepcopy(usual).to(memory_format=torch.channels_last)
    batches = [(torch.randn(6, 3, 6, 6), torch.arange(6) % 3)]
    ours, theirs = (observe(m, batches, [GRAM, NORM, SENSITIVITY]) for m in (last, usual))
    for statistic in (GRAM, NORM, SENSITIVITY):
        for name in ("0.weight", "2.weight", "4.weight"):
            assert torch.allclose(ours.of(statistic, name), theirs.of(statistic, name), atol=1e-5)


def test_experts_have_their_own_inputs():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 4, 2))

        def forward(self, x):
            return torch.bmm(x, self.w)

    x = torch.randn(3, 5, 4)
    gram = observe(Experts(), [(x, x)], [GRAM]).of(GRAM, "w")
    assert torch.allclose(gram, x.mT @ x / 3, atol=1e-5)


def test_queries_keys_and_values_of_a_packed_projection():
    attention = nn.MultiheadAttention(8, 2)
    q, k, v = torch.randn(5, 2, 8), torch.randn(6, 2, 8), torch.randn(6, 2, 8)
    gram = observe(attention, [((q, k, v), q)], [GRAM]).of(GRAM, "in_proj_weight")
    expected = torch.stack([x.reshape(-1, 8).T @ x.reshape(-1, 8) for x in (q, k, v)])
    assert torch.allclose(gram, expected / 5, atol=1e-5)


class Tied(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 9, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.table(x))


def test_a_tied_table_is_charged_for_both_uses():
    """Its relative error as a table is added to the relative error of the head's outputs."""
    model, x = Tied(), torch.randint(0, 9, (6, 3))
    tied = observe(model, [(x, x)], [GRAM]).of(GRAM, "table.weight")[0].double()
    apart = Tied(tied=False)
    apart.table.weight.data, apart.head.weight.data = model.table.weight.data, model.table.weight.data.clone()
    alone = observe(apart, [(x, x)], [GRAM]).of(GRAM, "head.weight")[0].double()
    w = model.table.weight.detach().double()
    error = torch.randn_like(w)

    def relative(gram):
        return ((error @ gram) * error).sum() / ((w @ alone) * w).sum()

    expected = relative(alone) + error.square().sum() / w.square().sum()
    assert torch.isclose(relative(tied), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_wide_whatever_the_models_type(dtype):
    model = nn.Linear(4, 3).to(dtype)
    x = (torch.randn(2048, 4) * 30).to(dtype)
    evidence = observe(model, [(x, torch.zeros(2048, dtype=torch.int64))], [GRAM, NORM])
    wide = x.double()
    assert torch.allclose(evidence.of(GRAM, "weight")[0].double(), wide.T @ wide / 2048, rtol=1e-4)
    assert torch.allclose(evidence.of(NORM, "weight")[0].double(), wide.norm(dim=0), rtol=1e-4)


class First(nn.Module):
    """A module's first output, of inputs that may be its query, key and value."""

    def __init__(self, module, n_inputs=1):
        super().__init__()
        self.module, self.n_inputs = module, n_inputs

    def forward(self, x):
        return self.module(*[x] * self.n_inputs)[0].flatten(1)


LARGE = {
    "convolution": (lambda: nn.Sequential(nn.Conv1d(5, 4, 2), nn.Flatten()), "0.weight"),
    "transposed convolution": (lambda: nn.Sequential(nn.ConvTranspose1d(5, 4, 2), nn.Flatten()), "0.weight"),
    "LSTM": (lambda: First(nn.LSTM(5, 3, batch_first=True)), "module.weight_ih_l0"),
    "attention": (lambda: First(nn.MultiheadAttention(5, 1, batch_first=True), 3), "module.in_proj_weight"),
    "linear layer of tokens": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Flatten()), "0.weight"),
}


@pytest.mark.parametrize("of", LARGE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_activations_of_any_layer_do_not_overflow(of, dtype):
    make, name = LARGE[of]
    torch.manual_seed(0)
    model = make().to(dtype)
    x = (torch.randn(64, 5, 5) * 100).to(dtype)
    narrow, wide = (
        observe(m, [(x.to(t), torch.zeros(64, dtype=torch.int64))], [GRAM, NORM])
        for m, t in ((model, dtype), (copy.deepcopy(model).double(), torch.float64))
    )
    for statistic in (GRAM, NORM):
        assert torch.allclose(narrow.of(statistic, name), wide.of(statistic, name), rtol=1e-3)


WITHOUT = {
    "a table": (lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3)), "0.weight", "looked up"),
    "weight norm": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), parametrizations.weight_norm(nn.Linear(8, 3))),
        "2.parametrizations.weight.original1",
        "enters _weight_norm.*remove the parametrisation",
    ),
    "unused": (
        lambda: nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(6, 3)),
        "3.weight",
        "is its layer used",
    ),
}


class Merged(nn.Module):
    """Its weight is a product of parameters, as in low-rank adapters."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.a, self.b = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(3, 2))

    def forward(self, x):
        return nn.functional.linear(self.embed(x).sum(1), self.b @ self.a)


WITHOUT |= {
    "a left factor": (Merged, "b", "enters torch.Tensor.*matmul"),
    "orthogonal": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), parametrizations.orthogonal(nn.Linear(8, 3))),
        "2.parametrizations.weight.original",
        "enters .*remove the parametrisation",
    ),
    "scaled": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), Scaled(8, 3)),
        "2.weight",
        "enters torch.Tensor.mul",
    ),
}


class Scaled(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight * 2)


def test_a_lazy_layer_that_never_ran_is_named():
    with pytest.raises(MismatchError, match="weight: not initialised yet; run the model once first"):
        observe(nn.LazyLinear(3), [(torch.randn(6, 4), torch.zeros(6, dtype=torch.int64))], [GRAM])


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_weight_without_evidence_says_why(kind):
    make, name, why = WITHOUT[kind]
    evidence = observe(make(), [(torch.randint(0, 9, (4, 2)), torch.zeros(4, dtype=torch.int64))], [GRAM])
    with pytest.raises(MismatchError, match=why):
        evidence.of(GRAM, name)


def test_batches_of_inputs_alone_are_enough_for_what_needs_no_loss():
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    for batch in (x, [x], (x, None), {"input": x}):
        assert observe(model, [batch], [GRAM]).n == 6


def test_wide_layers_have_a_gram_matrix_for_each_block_of_inputs(monkeypatch):
    monkeypatch.setattr("laconic.model.evidence.MAX_INPUTS", 4)
    torch.manual_seed(0)
    model, x = nn.Linear(10, 3), torch.randn(20, 10)
    evidence = observe(model, [(x, torch.zeros(20, dtype=torch.int64))], [GRAM, SENSITIVITY])
    blocks = nn.functional.pad(x, (0, 2)).reshape(20, 3, 4).movedim(1, 0)
    assert torch.allclose(evidence.of(GRAM, "weight"), blocks.mT @ blocks / 20, atol=1e-6)
    rows = evidence.rows("weight", model.weight)
    assert rows.shape == (3, 3, 4)
    assert torch.equal(rows[2, :, 2:], torch.zeros(3, 2))
    assert torch.equal(evidence.form("weight").weight(rows, model.weight.shape), model.weight)
    for criterion in (laconic.pruning.criteria.obs, laconic.pruning.criteria.output_error):
        assert criterion({"weight": model.weight}, evidence)["weight"].shape == (3, 10)
    for solver in (laconic.pruning.solvers.LeastSquares(), laconic.pruning.solvers.SparseGPT(2)):
        pruned = copy.deepcopy(model)
        laconic.prune_(pruned, 0.5, solver=solver, data=evidence)
        assert int((pruned.weight == 0).sum()) == 15


@pytest.mark.parametrize(
    ("n_rows", "n_inputs", "n_blocks"), [(2, 1024, 1), (2, 5000, 5), (40, 5000, 2), (100, 5000, 1), (200, 9000, 2)]
)
def test_a_gram_matrix_is_as_large_as_its_weight_deserves(n_rows, n_inputs, n_blocks):
    x = torch.zeros(2, n_inputs)
    evidence = observe(nn.Linear(n_inputs, n_rows), [(x, torch.zeros(2, dtype=torch.int64))], [GRAM])
    gram = evidence.of(GRAM, "weight")
    assert gram.shape[:2] == (n_blocks, n_inputs // n_blocks)
    assert gram.numel() <= 64 * n_rows * n_inputs or gram.shape[1] <= 1024


def test_a_gram_matrix_is_made_invertible_once():
    _, evidence, _ = net_and_evidence()
    assert evidence.damped("fc1.weight") is evidence.damped("fc1.weight")
    assert evidence.damped("fc1.weight", 0.1) is not evidence.damped("fc1.weight")


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="from PyTorch 2.6 on")
def test_compiled_parts_of_a_model_are_observed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.randn(6, 4)
    batches = [(x, torch.tensor([0, 1, 2, 0, 1, 2]))]
    expected = observe(model, batches, [GRAM])
    model[0].compile(backend="eager")
    model(x)
    found = observe(model, batches, [GRAM])
    for name in ("0.weight", "2.weight"):
        assert torch.equal(found.of(GRAM, name), expected.of(GRAM, name))
    model(x)


def test_tables_are_told_from_layers():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.layer = nn.Embedding(9, 4), nn.Linear(4, 4)

        def forward(self, ids):
            return F.linear(self.layer(self.table(ids)), self.table.weight)

    seen = observe(Tied(), [(torch.randint(9, (5, 6)), torch.randint(9, (5, 6)))], [GRAM])
    assert seen.tables == {"table.weight"}
    assert (seen.counts("table.weight"), seen.counts("layer.weight")) == (laconic.model.evidence.OF_TABLES, 1)
