import inspect
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import laconic
from laconic.errors import CollapseError, MismatchError, NonFiniteError
from laconic.pruning import Pruner, budgets, contest


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, 30), nn.Linear(30, 10))


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.777, 0.9, 0.99])
def test_masks_equal_those_of_torch_prune(amount):
    model = net()
    layers = [model[0], model[2], model[3]]
    ours = laconic.pruning.Pruner().at(amount).mask(model)
    by_layer = laconic.pruning.Pruner(scope=laconic.pruning.scopes.PerTensor()).at(amount).mask(model)
    for layer, name in zip(layers, ours, strict=True):
        torch_prune.l1_unstructured(layer, "weight", amount)
        assert torch.equal(layer.weight_mask.bool(), by_layer[name])
        torch_prune.remove(layer, "weight")
    fresh = net()
    ours = laconic.pruning.Pruner().at(amount).mask(fresh)
    layers = [(fresh[0], "weight"), (fresh[2], "weight"), (fresh[3], "weight")]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=amount)
    for (layer, _), name in zip(layers, ours, strict=True):
        assert torch.equal(layer.weight_mask.bool(), ours[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_any_scores_signed_infinite_or_tiny(dtype):
    scores = torch.tensor([0.0, -0.0, 1e-30, -5, torch.inf, -torch.inf, 3, 3, 3, 1e-7]).to(dtype)
    order = torch.sort(scores, descending=True, stable=True).indices
    for k in range(len(scores) + 1):
        mask = laconic.pruning.select({"s": scores}, laconic.pruning.budgets.Density(k / len(scores)))["s"]
        assert torch.equal(mask.nonzero().squeeze(1), order[:k].sort().values)


def test_selection_crosses_chunks():
    scores = {"a": torch.rand(1_500_000), "b": torch.rand(700_000).round(decimals=1)}
    mask = laconic.pruning.select(scores, laconic.pruning.budgets.Density(0.3))
    everything = torch.cat(list(scores.values()))
    best = torch.sort(everything, descending=True, stable=True).indices[: mask.n_kept]
    assert mask.n_kept == 660_000
    assert torch.cat([mask["a"], mask["b"]])[best].all()


def test_nan_is_named():
    with pytest.raises(NonFiniteError, match="b: .*NaN"):
        laconic.pruning.select(
            {"a": torch.ones(2), "b": torch.tensor([1.0, torch.nan])}, laconic.pruning.budgets.Density(0.5)
        )


def test_prune_is_one_line():
    model = net()
    mask = laconic.prune_(model, amount=0.9)
    assert repr(mask) == "Mask(268 of 2,676 kept, in 3 tensors)"
    assert mask.sparsity == pytest.approx(0.9, abs=1e-3)
    assert sum(int(w.count_nonzero()) for w in laconic.model.compressible(model).values()) == 268
    with pytest.raises(ValueError, match=r"amount: expected a fraction removed, within \[0, 1\], found 90"):
        laconic.prune_(model, amount=90)


def test_apply_refuses_a_foreign_mask_before_touching_the_model():
    model = net()
    before = model[2].weight.clone()
    for foreign, message in [
        (
            {"2.weight": torch.zeros(30, 72, dtype=torch.bool), "9.weight": torch.ones(1, dtype=torch.bool)},
            "9.weight: the mask has it",
        ),
        ({"2.weight": torch.zeros(8, 4, dtype=torch.bool)}, r"2.weight: mask is \(8, 4\), tensor is \(30, 72\)"),
    ]:
        with pytest.raises(MismatchError, match=message):
            laconic.pruning.apply_(model, laconic.pruning.Mask(foreign))
    assert torch.equal(before, model[2].weight)
    with pytest.raises(MismatchError, match="boolean"):
        laconic.pruning.Mask({"2.weight": torch.ones(30, 72)})


def test_masked_removes_nan_too():
    weight = torch.tensor([1.0, torch.nan, torch.inf])
    assert laconic.pruning.masked(weight, torch.tensor([True, False, False])).tolist() == [1, 0, 0]


def test_masks_do_not_change_with_what_they_were_made_from():
    kept = torch.ones(3, dtype=torch.bool)
    mask = laconic.pruning.Mask({"w": kept})
    kept[0] = False
    assert mask.n_kept == 3


def test_an_amount_goes_through_the_frames_that_the_guide_lists(monkeypatch):
    """`docs/how-it-works.md`: the call stack from `prune_` to the choice of the winners."""
    package = str(Path(laconic.__file__).parent)
    stack = []
    largest = contest.largest

    def spy(*args):
        frame = sys._getframe(1)
        while frame:
            code, frame = frame.f_code, frame.f_back
            if code.co_filename.startswith(package) and not code.co_name.startswith("<"):  # comprehensions are lines
                stack.append(code.co_qualname)
        return largest(*args)

    monkeypatch.setattr(budgets, "largest", spy)
    laconic.prune_(net(), 0.9)
    guide = Path(__file__).parents[2] / "docs" / "how-it-works.md"
    life = guide.read_text(encoding="utf-8").split("## The life of an amount")[1].split("## ")[0]
    listed = re.findall(r"^\| `([\w.]+)` \(", life, flags=re.MULTILINE)
    assert listed == [*reversed(stack), "largest"]
    assert len(listed) == 6


def of_scales(*scales):
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in scales))
    for layer, scale in zip(model, scales, strict=True):
        nn.init.uniform_(layer.weight, scale, 2 * scale)
    return model


@pytest.mark.parametrize("scales", [(1.0, 0.01, 1.0), (10.0, 1.0, 10.0), (1.0, 1.0, 1e-6)])
def test_by_default_no_layer_is_emptied_unsaid(scales):
    """Embeddings are drawn from N(0, 1), linear layers from ±1/√n: together, the linear ones would lose all weights."""
    model = of_scales(*scales)
    before = [layer.weight.clone() for layer in model]
    emptied = min(range(3), key=lambda i: scales[i])
    with pytest.raises(CollapseError, match=rf"{emptied}.weight: expected some of its 64 weights to stay"):
        laconic.prune_(model, 0.5)
    assert all(torch.equal(layer.weight, w) for layer, w in zip(model, before, strict=True))
    assert laconic.prune_(model, 0.5, scope=laconic.pruning.scopes.PerTensor()).n_kept == 96
    assert not laconic.prune_(of_scales(*scales), 0.5, scope=laconic.pruning.scopes.Global())[f"{emptied}.weight"].any()
    assert laconic.prune_(of_scales(*scales), 1.0).n_kept == 0, "what was asked for"


@pytest.mark.parametrize("amount", ["0.9", None, True, [0.9], 1j, torch.tensor(0.9)], ids=repr)
def test_what_is_no_amount_is_refused(amount):
    with pytest.raises(ValueError, match=r"amount: expected a fraction removed, within \[0, 1\], or a budget, found"):
        inspect.unwrap(Pruner.at)(Pruner(), amount)  # without the tests' type checks


def test_percents_are_told():
    with pytest.raises(ValueError, match=r"within \[0, 1\], found 90; 90 % is 0.9"):
        laconic.prune_(net(), 90)
