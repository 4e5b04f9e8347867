import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import laconic
from laconic.errors import MismatchError
from laconic.model.selectors import names_to_quantize


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.body = nn.ModuleDict({"fc1": nn.Linear(8, 8), "fc2": nn.Linear(8, 8), "norm": nn.LayerNorm(8)})
        self.conv = nn.ConvTranspose1d(8, 4, 3)
        self.head = nn.Linear(8, 20)
        self.head.weight = self.embed.weight


CASES = [
    ({}, ["embed.weight", "body.fc1.weight", "body.fc2.weight", "conv.weight"]),
    ({"exclude": ["body"]}, ["embed.weight", "conv.weight"]),
    ({"exclude": ["body.fc1.weight", nn.ConvTranspose1d]}, ["embed.weight", "body.fc2.weight"]),
    ({"exclude": ["head"]}, ["body.fc1.weight", "body.fc2.weight", "conv.weight"]),
    ({"include": [nn.Linear]}, ["embed.weight", "body.fc1.weight", "body.fc2.weight"]),
    ({"include": [r"re:body\.fc\d\.bias"]}, ["body.fc1.bias", "body.fc2.bias"]),
    ({"include": ["body"]}, ["body.fc1.weight", "body.fc2.weight"]),
    ({"include": "body.norm.weight"}, ["body.norm.weight"]),
]


@pytest.mark.parametrize(("choice", "names"), CASES)
def test_selectors(choice, names):
    model = Net()
    found = laconic.model.compressible(model, **choice)
    assert list(found) == names
    assert all(found[name] is dict(model.named_parameters())[name] for name in names)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"exclude": ["body.fc3"]}, r"'body.fc3', found none; did you mean .*'body.fc2'"),
        ({"include": [nn.Conv2d]}, "type Conv2d"),
        ({"include": ["re:zzz"]}, "re:zzz"),
        ({"exclude": ["re:.*"]}, "no tensor of this model compresses"),
    ],
)
def test_selectors_that_match_nothing_are_errors(choice, message):
    with pytest.raises(MismatchError, match=message):
        laconic.model.compressible(Net(), **choice)


def test_lazy_layers_ask_to_be_run_first():
    with pytest.raises(MismatchError, match="not initialised"):
        laconic.model.compressible(nn.Sequential(nn.LazyLinear(3)))


def test_names_are_the_inner_ones():
    model = Net()
    wrapped = torch.compile(nn.DataParallel(model))
    assert list(laconic.model.compressible(wrapped)) == list(laconic.model.compressible(model))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = nn.ParameterList([nn.Parameter(torch.randn(4, 4)) for _ in range(2)])
        self.experts = nn.Parameter(torch.randn(3, 4, 5))
        self.register_buffer("anchors", torch.randn(3, 2))


EVERYWHERE = {
    "LSTM": (nn.LSTM(3, 4, bidirectional=True), 4),
    "GRU": (nn.GRU(3, 4, num_layers=2), 4),
    "attention": (nn.MultiheadAttention(8, 2), 2),
    "attention to others": (nn.MultiheadAttention(8, 2, kdim=4, vdim=6), 4),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16), 4),
    "bilinear": (nn.Bilinear(3, 4, 5), 1),
    "bag": (nn.EmbeddingBag(9, 4), 1),
    "bare parameters": (Bare(), 3),
    "GPT-2": (transformers.GPT2Model(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9)), 6),
    "weight norm": (nn.Sequential(parametrizations.weight_norm(nn.Conv1d(2, 3, 3))), 1),
    "spectral norm": (nn.Sequential(parametrizations.spectral_norm(nn.Linear(2, 3))), 1),
    "cells": (nn.ModuleList([nn.LSTMCell(3, 4), nn.GRUCell(3, 4), nn.RNNCell(3, 4)]), 6),
    "decoder": (nn.TransformerDecoderLayer(8, 2, 16), 6),
    "parameters by name": (nn.ParameterDict({"a": nn.Parameter(torch.randn(3, 4))}), 1),
    "orthogonal": (nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4))), 1),
    "transposed": (nn.ConvTranspose1d(3, 4, 3), 1),
    "layer norm of images": (nn.Sequential(nn.LayerNorm([3, 4, 4]), nn.Conv2d(3, 4, 3)), 1),
}


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_every_matrix_compresses_whatever_holds_it_in_modules_and_checkpoints(kind):
    model, n = EVERYWHERE[kind]
    found = laconic.model.compressible(model)
    assert len(found) == n
    assert all(parameter.ndim > 1 for parameter in found.values())
    of_module = names_to_quantize(model, None, ())
    of_state = names_to_quantize(model.state_dict(), None, ())
    assert found.keys() <= of_module
    assert found.keys() <= of_state


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def test_weight_norm_by_hooks_is_pruned_in_its_direction():
    assert list(laconic.model.compressible(nn.Sequential(weight_norm(nn.Linear(3, 4))))) == ["0.weight_v"]


BUFFERS = [
    "anchors",
    "m.anchor_grid",
    "pixel_mean",
    "attn.bias",
    "h.0.attn.masked_bias",
    "tril",
    "attn_mask",
    "cos_cached",
]
WEIGHTS = ["weight", "l.weight_ih_l0", "conv.weight", "gate_up_proj", "pos_embed", "cls_token", "kernel", "meaning"]


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(MismatchError, match=r"expected a pattern, found 're:\(': missing"):
        laconic.model.compressible(Net(), exclude=["re:("])


def test_a_checkpoints_buffers_are_told_by_their_names():
    state = {name: torch.randn(3, 4) for name in [*BUFFERS, "l.weight_scale_inv", "q.scales", *WEIGHTS]}
    assert names_to_quantize(state, None, ()) == set(WEIGHTS)
    assert names_to_quantize(state, ["anchors"], ()) == {"anchors"}
