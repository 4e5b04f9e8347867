import pytest
import torch
from torch import nn

from laconic import zoo

IMAGE = (1, 28, 28)


@pytest.mark.parametrize(
    ("make", "n_parameters", "input_shape"),
    [
        (zoo.blobs_net, 1_203, (20,)),
        (zoo.lenet_300_100, 266_610, IMAGE),
        (zoo.lenet5, 431_080, IMAGE),
        (zoo.resnet20, 269_722, (3, 32, 32)),
        (zoo.resnet32, 464_154, (3, 32, 32)),
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
