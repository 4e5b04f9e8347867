import pytest
import torch
from torch import nn

import laconic
from laconic import zoo
from laconic.errors import UnsupportedError
from tests.support.networks import bert, llama


def total(model, inputs):
    return sum(
        n * laconic.model.compressible(model)[name].numel()
        for name, n in laconic.surgery.count_macs(model, inputs).items()
    )


def test_resnet20_is_as_published():
    model = zoo.resnet20()
    assert total(model, torch.randn(2, 3, 32, 32)) == pytest.approx(40.55e6, rel=1e-3)
    assert total(model, torch.randn(1, 3, 32, 32)) == total(model, torch.randn(5, 3, 32, 32))


def test_a_linear_layer_counts_positions_and_an_embedding_nothing():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 2))
    assert laconic.surgery.count_macs(model, torch.zeros(3, 7, dtype=torch.int64)) == {
        "0.weight": 0,
        "1.weight": 7,
        "2.weight": 7,
    }


def test_convolutions_count_positions_of_the_output_or_the_input():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.ConvTranspose2d(4, 2, 2, 2)
    )
    assert laconic.surgery.count_macs(model, torch.randn(5, 3, 8, 6)) == {
        "0.weight": 12,
        "1.weight": 12,
        "2.weight": 12,
    }
    assert laconic.surgery.count_macs(nn.Conv1d(2, 2, 3), torch.randn(4, 2, 9)) == {"weight": 7}


def test_projections_of_attention():
    n, width, inner = 7, 32, 48
    counts = laconic.surgery.count_macs(bert(), {"input_ids": torch.zeros(3, n, dtype=torch.int64)})
    layers = {name: c for name, c in counts.items() if ".layer." in name}
    assert set(layers.values()) == {n}
    assert len(layers) == 2 * 6
    model = llama()
    per_layer = n * (2 * width * width + 2 * width * width // 2 + 3 * width * inner)
    expected = 2 * per_layer + n * 50 * width
    assert total(model, {"input_ids": torch.zeros(2, n, dtype=torch.int64)}) == expected, "the tied table counts once"


def test_multihead_attention_counts_its_projections():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    for mode in (True, False):
        counts = laconic.surgery.count_macs(model.train(mode), torch.randn(3, 5, 8))
        assert set(counts.values()) == {5}
        assert len(counts) == 4
        assert model.training == mode


def test_recurrent_layers_and_experts_are_counted():
    assert set(laconic.surgery.count_macs(nn.LSTM(3, 4, batch_first=True), torch.randn(2, 5, 3)).values()) == {5}

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 4, 2))

        def forward(self, x):
            return torch.bmm(x.expand(3, -1, -1), self.w)

    assert laconic.surgery.count_macs(Experts(), torch.randn(5, 4)) == {"w": 1}


def test_layers_used_twice_add_up_and_unused_ones_count_nothing():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(self.a(x))

    model = Net()
    model.a.eval()
    assert laconic.surgery.count_macs(model, (torch.randn(2, 4),)) == {"a.weight": 2, "b.weight": 0}
    assert (model.training, model.a.training) == (True, False)
    assert not model.a._forward_hooks


def test_cases_are_counted_by_a_tensor():
    with pytest.raises(UnsupportedError, match="expected a tensor among the inputs"):
        laconic.surgery.count_macs(nn.Linear(2, 2), {"x": None})
