import copy

import pytest
import torch
from torch import nn

import laconic
from laconic import Training, zoo
from laconic.datasets import blobs
from laconic.errors import MismatchError


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    data, dense = blobs(), zoo.blobs_net()
    batches = data.train.batches(50, shuffle=True)
    laconic.train(dense, batches, Training(20))
    pruned, short = copy.deepcopy(dense), copy.deepcopy(dense)
    laconic.prune_(pruned, 0.8)
    rule = laconic.search.CodeLengthRule(price=2.0, n_examples=len(data.train), every=20, lr=1e-2)
    laconic.train(short, batches, Training(20), [rule])
    linear = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))
    laconic.train(linear, batches, Training(20))
    return data, {"dense": dense, "pruned": pruned, "under the code": short, "linear": linear}


def test_each_network_counts_as_its_shortest_file(networks):
    data, models = networks
    found = laconic.compare(models, data)
    assert [stage.name for stage in found.networks] == list(models)
    totals = {stage.name: stage.ledger.total_bits for stage in found.networks}
    for name, model in models.items():
        ledgers = [laconic.describe(model, data.train.batches(), quantizer=q) for q in laconic.report.compare.GRIDS]
        assert totals[name] == pytest.approx(min(ledger.total_bits for ledger in ledgers))
    assert totals["under the code"] < totals["pruned"] < totals["dense"]
    assert found.shortest.ledger.total_bits == min(totals.values())
    assert all(name in str(found) for name in models) and "←" in str(found)
    assert len(found.figure().axes)


def test_batches_will_do_for_data(networks):
    data, models = networks
    batches = list(data.train.batches(100)), list(data.test.batches(100))
    one = {"dense": models["dense"]}
    here, there = laconic.compare(one, batches), laconic.compare(one, data)
    assert here.shortest.ledger.total_bits == pytest.approx(there.shortest.ledger.total_bits)
    assert here.shortest.score == there.shortest.score


def test_nothing_to_compare(networks):
    with pytest.raises(MismatchError, match="found none"):
        laconic.compare({}, networks[0])
