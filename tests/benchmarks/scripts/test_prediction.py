import pytest
import torch

from benchmarks.networks.families import NETWORKS, perceptron
from benchmarks.record_keeping import read_results
from benchmarks.scripts import prediction


def test_the_norms_of_a_linear_network_are_those_of_its_matrix():
    net = perceptron(2)
    found = prediction.norms(net, torch.randn(5, 1, 2, 2))
    weight, bias = (p.detach().double() for p in net.parameters())
    assert found["l2_norm"] == pytest.approx(float(weight.square().sum() + bias.square().sum()) ** 0.5)
    assert found["path_norm"] == pytest.approx(found["l2_norm"]), "a path for each parameter"
    assert found["spectral_norms"] == pytest.approx(float(torch.linalg.svdvals(weight)[0]), rel=1e-5)


def test_no_image_is_in_two_parts():
    parts, other = (prediction.parts("digits", seed) for seed in (0, 1))
    sizes = {name: len(part) for name, part in parts.items()}
    assert sizes == {"training": 1000, "held_out": 200, "test": 1797 - 1200}
    sums = [sum(float(part.inputs.double().sum()) for part in of.values()) for of in (parts, other)]
    assert sums[0] == pytest.approx(sums[1]), "all images once"
    assert not torch.equal(parts["training"].inputs, other["training"].inputs)


def test_the_result_has_every_network():
    results = read_results("prediction")
    for data in prediction.DATA:
        networks = results[data]["networks"]
        assert list(networks) == list(NETWORKS)
        for row in networks.values():
            total, *parts = (row[f"{of}_bits"]["mean"] for of in ("total", "file", "data"))
            assert total == pytest.approx(sum(parts))
