import pytest
import torch
from torch import nn

import laconic
from laconic.surgery import Plan

X = torch.randn(3, 8)


class Residual(nn.Module):
    """x + f(x), returned in one of several ways."""

    def __init__(self, returns=lambda x: x, then=lambda x: x):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8))
        self.returns, self.then = returns, then

    def forward(self, x, scale=1.0):
        return self.returns(self.then(x + scale * self.layers(x)))


class Chain(nn.Module):
    """Blocks one after another; of a tuple the first element goes on."""

    def __init__(self, *blocks):
        super().__init__()
        self.first, self.blocks, self.last = nn.Linear(8, 8), nn.ModuleList(blocks), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x, scale=0.5)
            x = x[0] if isinstance(x, tuple) else x
        return self.last(x)


RETURNS = {
    "a tensor": (lambda x: x, 0),
    "a tuple of one": (lambda x: (x,), 1),
    "a tuple with nothing more": (lambda x: (x, None, None), 3),
}


@pytest.mark.parametrize("name", RETURNS)
def test_blocks_are_left_out_whatever_they_return(name):
    returns, n_returned = RETURNS[name]
    model = Chain(Residual(returns), Residual(returns))
    coupling = laconic.surgery.find_residual_blocks(model, X)
    assert [(g.name, g.n, g.bypassed, g.n_returned) for g in coupling.groups] == [
        (f"blocks.{i}", 1, f"blocks.{i}", n_returned) for i in (0, 1)
    ]
    mask = {
        name: torch.zeros_like(w, dtype=torch.bool)
        for name, w in laconic.model.compressible(model).items()
        if "blocks" in name
    }
    plan = Plan.of(coupling, mask, model)
    assert plan.bypassed == {"blocks.0": n_returned, "blocks.1": n_returned}
    small = laconic.shrink(model, plan, X)
    assert torch.allclose(small(X), model.last(model.first(X)))


def test_rectified_sums_of_rectified_inputs_are_blocks():
    positive, free = Residual(then=torch.relu), Residual(then=torch.relu)
    coupling = laconic.surgery.find_residual_blocks(Chain(free, positive), X)
    assert [g.name for g in coupling.groups] == ["blocks.1"], "the first block's input is not rectified"
    assert coupling.refused["blocks.0"] == "with its tensors at zero it is not the identity"


def test_of_nested_blocks_the_innermost():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Residual(), Residual()

        def forward(self, x, scale):
            return self.b(self.a(x), scale)

    assert [g.name for g in laconic.surgery.find_residual_blocks(Chain(Twice()), X).groups] == [
        "blocks.0.a",
        "blocks.0.b",
    ]


def test_a_layer_that_only_gets_zeros_is_no_block():
    """f(f(x)) without a sum returns zeros for zeros, which is no identity."""

    class Plain(Residual):
        def forward(self, x, scale):
            return self.layers(x)

    coupling = laconic.surgery.find_residual_blocks(Chain(Plain(), Plain()), X)
    assert not coupling.groups
    assert {"blocks.0", "blocks.1"} <= coupling.refused.keys()


def test_blocks_that_share_tensors_or_run_twice_are_none():
    one = Residual()
    shared = Residual()
    shared.layers[0].weight = one.layers[0].weight
    assert not laconic.surgery.find_residual_blocks(Chain(one, shared), X).groups
    assert not laconic.surgery.find_residual_blocks(Chain(one, one), X).groups


def test_a_block_that_others_look_into_is_refused():
    class Looks(Chain):
        def forward(self, x):
            return super().forward(x) * self.blocks[0].layers[0].out_features

    coupling = laconic.surgery.find_residual_blocks(Looks(Residual(), Residual()), X)
    assert [g.name for g in coupling.groups] == ["blocks.1"]
    assert "'Bypass' object has no attribute 'layers'" in coupling.refused["blocks.0"]


def test_parts_are_all_tensors_of_the_block_as_one_member():
    (group,) = laconic.surgery.find_residual_blocks(Chain(Residual()), X).groups
    assert {part.tensor: part.index.tolist() for part in group.parts} == {
        f"blocks.0.layers.{i}.{kind}": [list(range(n))] for i, n in ((0, 6), (2, 8)) for kind in ("weight", "bias")
    }


def test_sums_in_place_are_not_mistaken_for_identities():
    class InPlace(Residual):
        def forward(self, x, scale):
            out = self.layers(x)
            out += x
            return out

    assert [g.name for g in laconic.surgery.find_residual_blocks(Chain(InPlace(), InPlace()), X).groups] == [
        "blocks.0",
        "blocks.1",
    ]
