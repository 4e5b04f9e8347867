import pytest
import torch
from torch import nn

import laconic
from laconic import zoo
from tests.support.networks import NETWORKS
from tests.surgery.test_conformance import run


def norms(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


def trained(model, inputs):
    """With statistics, and everything else about them, unlike those of fresh norms."""
    for _ in range(2):
        run(model.train(), inputs)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.5, 0.2) if parameter.ndim == 1 else None
    return model.eval()


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if norms(network.make())])
def test_a_folded_network_computes_the_same(name):
    torch.manual_seed(0)
    network = NETWORKS[name]
    inputs = network.inputs()
    model = trained(network.make(), inputs)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found = laconic.surgery.fuse_batch_norms(model, inputs)
    for one, other in zip(run(found, inputs), run(model, inputs), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_what_is_trained_is_still_trained():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    for module in list(model)[2:]:
        module.requires_grad_(False)
    found = laconic.surgery.fuse_batch_norms(model.eval(), torch.randn(2, 3, 5, 5))
    trained = [name for name, parameter in found.named_parameters() if parameter.requires_grad]
    assert trained == ["0.weight", "0.bias"]


LEFT = {
    "resnet20": (zoo.resnet20, (3, 32, 32), []),
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), (6,), []),
    "linear over positions": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(4)), (4, 6), ["1"]),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.BatchNorm2d(4)), (3, 4, 4), []),
    "transposed in groups": (
        lambda: nn.Sequential(nn.ConvTranspose2d(8, 8, 3, groups=4), nn.BatchNorm2d(8, affine=False)), (8, 4, 4), [],
    ),
    "transposed by channel": (
        lambda: nn.Sequential(nn.ConvTranspose1d(6, 6, 3, groups=6, bias=False), nn.BatchNorm1d(6)), (6, 4), [],
    ),
    "transposed in groups to more": (
        lambda: nn.Sequential(nn.ConvTranspose3d(4, 6, 2, groups=2), nn.BatchNorm3d(6)), (4, 3, 3, 3), [],
    ),
    "another order": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1)), (3, 4, 4), ["0"]),
    "batch statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), (3, 4, 4), ["1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_norms_are_folded_where_they_follow_a_layer(case):
    make, shape, left = LEFT[case]
    torch.manual_seed(0)
    inputs = torch.randn(5, *shape)
    model = trained(make(), inputs)
    found = laconic.surgery.fuse_batch_norms(model, inputs)
    assert norms(found) == left
    torch.testing.assert_close(found(inputs), model(inputs), atol=1e-4, rtol=1e-4)


class Twice(nn.Module):
    """A layer's output goes to its norm and past it; another norm is alone with its layer; a third is called twice."""

    def __init__(self):
        super().__init__()
        self.both, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.alone, self.own = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.again, self.shared = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        x = self.both(x)
        x = x + self.norm(x).relu()
        x = self.own(self.alone(x)).relu()
        return self.shared(self.again(self.shared(self.again(x)).relu()))


def test_norms_stay_whose_layer_is_read_elsewhere_or_called_again():
    torch.manual_seed(0)
    inputs = torch.randn(6, 4)
    found = laconic.surgery.fuse_batch_norms(trained(Twice(), inputs), inputs)
    assert norms(found) == ["norm", "shared"]


def test_a_file_of_a_folded_network_fills_another(tmp_path):
    inputs = torch.randn(4, 3, 32, 32)
    model = laconic.surgery.fuse_batch_norms(trained(zoo.resnet20(), inputs), inputs)
    laconic.save(model, tmp_path / "net.lac")
    other = laconic.load(tmp_path / "net.lac", into=laconic.surgery.fuse_batch_norms(zoo.resnet20(), inputs))
    assert torch.equal(other.eval()(inputs), laconic.load(tmp_path / "net.lac", into=model)(inputs))


def test_training_goes_on_as_it_was():
    inputs = torch.randn(4, 6)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)).train()
    found = laconic.surgery.fuse_batch_norms(model, inputs)
    assert all(module.training for module in (*found.modules(), *model.modules()))
