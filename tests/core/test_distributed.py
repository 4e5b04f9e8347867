"""Two processes, one network: masks are decided once, and weights stay equal."""

import pytest
import torch

from laconic.pruning.mask import Mask, broadcast_mask
from tests.support import two_ranks


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_alone_a_mask_is_agreed():
    mask = Mask({"a": torch.ones(2).bool()})
    assert broadcast_mask(mask) is mask


def test_the_first_rank_decides():
    (first, its), (second, others) = two_ranks.spawn(two_ranks.masks_that_differ)
    assert not equal(first, second)
    assert equal(its, first)
    assert equal(others, first)


@pytest.mark.slow
def test_ranks_keep_equal_weights_though_their_data_differ():
    first, second = two_ranks.spawn(two_ranks.trainings)
    for name, (weights, mask) in first.items():
        assert equal(weights, second[name][0]), name
        assert equal(mask, second[name][1]), name
    kept = {name: sum(int(kept.sum()) for kept in mask.values()) for name, (_, mask) in first.items()}
    assert {name: kept[name] for name in ("hold", "gradual", "RigL")} == {"hold": 112, "gradual": 67, "RigL": 112}
