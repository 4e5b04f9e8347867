import pytest
import torch
from torch import nn

import laconic
from laconic.errors import MismatchError


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
