import pytest
import torch
from torch import nn
from torch.nn import functional as F

import laconic
from tests.support.networks import bert, llama, tokens

X = torch.randn(2, 5, 12)


class Attention(nn.Module):
    """Plain attention under other names, with its sizes as attributes."""

    def __init__(self, names, attributes, use):
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(12, 12))
        self.out = nn.Linear(12, 12)
        self.names, self.use = names, use
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        q, k, v = (getattr(self, name)(x).unflatten(-1, self.use(self)).transpose(1, 2) for name in self.names)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


SPELT = {
    "width as attribute": (("to_q", "to_k", "to_v"), {"dim_head": 3}, lambda m: (-1, m.dim_head), ()),
    "count as attribute": (
        ("q_lin", "k_lin", "v_lin"),
        {"n_heads": 4},
        lambda m: (m.n_heads, 3),
        (("0", "n_heads", 1),),
    ),
    "width from sizes": (
        ("wq", "wk", "wv"),
        {"n_heads": 4, "dim": 12},
        lambda m: (m.n_heads, m.dim // m.n_heads),
        (("0", "n_heads", 1), ("0", "dim", 3)),
    ),
    "the model's width": (
        ("query_proj", "key_proj", "value_proj"),
        {"num_heads": 4, "embed_dim": 12},
        lambda m: (m.num_heads, m.embed_dim // 4),
        (("0", "num_heads", 1),),
    ),
}


@pytest.mark.parametrize("name", SPELT)
def test_attention_is_told_by_its_structure(name):
    names, attributes, use, settings = SPELT[name]
    coupling = laconic.surgery.find_heads(nn.Sequential(Attention(names, attributes, use)), X)
    (group,) = coupling.groups
    assert group.n == 4
    assert set(group.settings) == set(settings)
    assert {(part.tensor, part.axis) for part in group.parts} == {
        *((f"0.{n}.{kind}", 0) for n in names for kind in ("weight", "bias")),
        ("0.out.weight", 1),
    }


def test_members_are_key_value_heads_with_their_queries():
    group = laconic.surgery.find_heads(llama(), tokens()).groups[0]
    widths = {part.tensor.rpartition("self_attn.")[2]: tuple(part.index.shape) for part in group.parts}
    assert widths == {
        "q_proj.weight": (4, 8),
        "k_proj.weight": (4, 4),
        "v_proj.weight": (4, 4),
        "o_proj.weight": (4, 8),
    }
    assert group.parts[0].index[1].tolist() == list(range(8, 16))


def test_settings_count_heads():
    group = laconic.surgery.find_heads(bert(), tokens()).groups[0]
    assert {attribute: each for _, attribute, each in group.settings} == {"num_attention_heads": 1, "all_head_size": 8}


class Biased(nn.Module):
    """A bias for each head from elsewhere, which does not follow."""

    def __init__(self):
        super().__init__()
        self.attention = Attention(("q", "k", "v"), {"head_dim": 3}, lambda m: (-1, m.head_dim))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        a = self.attention
        q, k, v = (m(x).unflatten(-1, (-1, 3)).transpose(1, 2) for m in (a.q, a.k, a.v))
        return a.out(
            F.scaled_dot_product_attention(q, k, v, self.bias[:, None, None].expand(4, 5, 5)).transpose(1, 2).flatten(2)
        )


class NoOutput(Attention):
    def forward(self, x):
        return self.q(x) + self.k(x) + self.v(x)


REFUSED = {
    "something per head elsewhere": (Biased(), "attention", "does not run"),
    "no sizes": (nn.Sequential(Attention(("q", "k", "v"), {}, lambda m: (4, 3))), "0", "found no attribute that tells it"),
    "a single head": (nn.Sequential(Attention(("q", "k", "v"), {"n_heads": 1}, lambda m: (1, 12))), "0", "several heads"),
    "no output projection": (nn.Sequential(NoOutput(("q", "k", "v"), {"n_heads": 4}, None)), "0", "an output projection of 12 inputs"),
    "another width": (nn.Sequential(Attention(("q", "k", "v"), {"head_dim": 6}, lambda m: (4, 3))), "0", "does not run|outputs differ"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_heads_that_cannot_go_are_refused_by_name(name):
    model, attention, reason = REFUSED[name]
    coupling = laconic.surgery.find_heads(model, X)
    assert not coupling.groups
    assert any(part in coupling.refused[attention] for part in reason.split("|"))


def test_packed_projections_are_refused_by_name():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_heads, self.qkv, self.out = 4, nn.Linear(12, 36), nn.Linear(12, 12)

        def forward(self, x):
            q, k, v = (t.unflatten(-1, (4, 3)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
            return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    coupling = laconic.surgery.find_heads(nn.Sequential(Packed()), X)
    assert not coupling.groups
    assert "not three linear children" in coupling.refused["0"]
