import os
from pathlib import Path

import pytest
import torch
from torch import nn

from laconic import zoo
from laconic.datasets import cifar10
from laconic.formats.checkpoints import CheckpointError

ROOT = Path(os.environ.get("LACONIC_DATA", "."))
CHECKPOINTS = {
    zoo.resnet20: ("resnet20-12fca82f.th", 0.9173),
    zoo.resnet32: ("resnet32-d509ac18.th", 0.9263),
}
IMAGE = (1, 28, 28)


@pytest.mark.parametrize(
    ("make", "n_parameters", "input_shape"),
    [
        (zoo.blobs_net, 1_203, (20,)),
        (zoo.lenet_300_100, 266_610, IMAGE),
        (zoo.lenet5, 431_080, IMAGE),
        (zoo.resnet20, 269_722, (3, 32, 32)),
        (zoo.resnet32, 464_154, (3, 32, 32)),
        (zoo.resnet44, 658_586, (3, 32, 32)),
        (zoo.resnet56, 853_018, (3, 32, 32)),
    ],
)
def test_parameters_and_shapes(make, n_parameters, input_shape):
    model = make()
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    out = model(torch.randn(2, *input_shape))
    assert out.shape == (2, 3 if make is zoo.blobs_net else 10)


def test_mlp_flattens_and_has_no_last_relu():
    model = zoo.mlp(784, 5, 4)
    x = torch.randn(64, *IMAGE)
    hidden = torch.relu(model.fc1(x.flatten(1)))
    assert torch.equal(model(x), model.fc2(hidden))
    assert torch.equal(model(x), model(x.flatten(1)))
    assert list(model.state_dict()) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]


def test_blobs_net_starts_small():
    state = zoo.blobs_net().state_dict()
    assert not state["fc1.bias"].any()
    assert 0.09 < state["fc1.weight"].std() < 0.11


def test_lenet5_has_one_relu():
    model = zoo.lenet5()
    names = {name.partition(".")[0] for name in model.state_dict()}
    assert names == {"conv1", "conv2", "fc1", "fc2"}
    assert sum(isinstance(m, nn.ReLU) for m in model.modules()) == 1


def test_shortcut_subsamples_and_pads_both_sides_with_zeros():
    block = zoo.BasicBlock(2, 4, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    x = torch.rand(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_resnet_refuses_other_depths(depth):
    with pytest.raises(ValueError, match=f"6n \\+ 2.*found {depth}"):
        zoo.ResNet(depth)


def test_load_checkpoint_is_strict(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(zoo.mlp(4, 3, 2).state_dict(), path)
    model = zoo.mlp(4, 3, 2)
    zoo.load_checkpoint(model, path)
    assert torch.equal(model.fc1.weight, torch.load(path, weights_only=True)["fc1.weight"])
    for other in (zoo.mlp(4, 3, 3, 2), zoo.mlp(4, 2), zoo.mlp(4, 5, 2)):
        with pytest.raises(CheckpointError, match=r"x\.pt: expected the .* found .*fc") as caught:
            zoo.load_checkpoint(other, path)
        assert "\n" not in str(caught.value)


def _loaded(make) -> nn.Module:
    path = ROOT / "checkpoints" / CHECKPOINTS[make][0]
    if "LACONIC_DATA" not in os.environ or not path.exists():
        pytest.skip(f"LACONIC_DATA has no checkpoints/{path.name}")
    model = make().eval()
    zoo.load_checkpoint(model, path)
    return model


@pytest.mark.parametrize("make", CHECKPOINTS)
def test_published_checkpoints_load(make):
    _loaded(make)


@pytest.mark.slow
@pytest.mark.parametrize("make", CHECKPOINTS)
def test_published_accuracy(make):
    model = _loaded(make)
    if not (ROOT / "cifar10").exists():
        pytest.skip("LACONIC_DATA has no cifar10/")
    with torch.inference_mode():
        hits = [(model(x).argmax(1) == y).sum() for x, y in cifar10().test.batches(500)]
    assert sum(hits).item() == round(10_000 * CHECKPOINTS[make][1])
