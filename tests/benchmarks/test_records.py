"""The committed records decode to the networks whose errors are quoted."""

import os

import pytest

from benchmarks.record_keeping import record, runs
from benchmarks.scripts import lenets, under_code


def agrees(found, run):
    assert found == pytest.approx(run["row"], rel=1e-4, abs=2e-4)


@pytest.mark.skipif("LACONIC_DATA" not in os.environ, reason="needs MNIST")
@pytest.mark.parametrize("run", runs("lenets"), ids=lambda run: " ".join(run["of"]))
def test_a_lenet_has_its_length_and_its_error(run):
    network, price, seed = run["of"]
    agrees(lenets.scored(record(network, float(price), int(seed)), network), run)


@pytest.mark.slow
@pytest.mark.skipif("LACONIC_DATA" not in os.environ, reason="needs CIFAR-10")
@pytest.mark.parametrize("run", runs("under_code"), ids=lambda run: " ".join(run["of"]))
def test_a_resnet_has_its_length_and_its_accuracy(run):
    price, seed = run["of"]
    agrees(under_code.scored(record("resnet-20", float(price), int(seed))), run)
