import os

import pytest
import torch
from torch import nn

import laconic
from benchmarks.networks.resnets import load_checkpoint, resnet44, resnet56, trained_resnet
from laconic import zoo
from laconic.datasets import cifar10
from laconic.errors import CheckpointError


@pytest.mark.parametrize(("make", "n_parameters"), [(resnet44, 658_586), (resnet56, 853_018)])
def test_parameters_and_shapes(make, n_parameters):
    model = make()
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_checkpoint_must_match(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(zoo.mlp(4, 3, 2).state_dict(), path)
    model = zoo.mlp(4, 3, 2)
    load_checkpoint(model, path)
    assert torch.equal(model.get_parameter("fc1.weight"), torch.load(path, weights_only=True)["fc1.weight"])
    for other in (zoo.mlp(4, 3, 3, 2), zoo.mlp(4, 2), zoo.mlp(4, 5, 2), nn.Linear(4, 2)):
        with pytest.raises(CheckpointError, match=r"x\.pt: expected the .* found ") as caught:
            load_checkpoint(other, path)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif("LACONIC_DATA" not in os.environ, reason="needs CIFAR-10 and its checkpoints")
@pytest.mark.parametrize(("depth", "accuracy"), [(20, 0.9173), (32, 0.9263)])
def test_published_accuracy(depth, accuracy):
    found = laconic.evaluate(trained_resnet(depth), cifar10().test.batches(500))
    assert found.accuracy == pytest.approx(accuracy, abs=1e-9)
