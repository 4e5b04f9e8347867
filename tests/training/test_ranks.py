"""Two processes, one network: masks are decided once, and weights stay equal."""

import pytest
import torch

import two_ranks
from laconic.pruning.mask import Mask, agreed


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_alone_a_mask_is_agreed():
    mask = Mask({"a": torch.ones(2).bool()})
    assert agreed(mask) is mask


@pytest.mark.slow
def test_the_first_rank_decides():
    (first, its), (second, others) = two_ranks.spawn(two_ranks.masks_that_differ)
    assert not equal(first, second)
    assert equal(its, first)
    assert equal(others, first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hold", "gradual", "RigL", "gates"])
def test_ranks_keep_equal_weights_though_their_data_differ(name):
    (weights, mask), (others, other_mask) = two_ranks.spawn(two_ranks.training, name)
    assert equal(weights, others)
    assert equal(mask, other_mask)
    if name != "gates":
        kept = sum(int(kept.sum()) for kept in mask.values()) / sum(kept.numel() for kept in mask.values())
        assert kept == pytest.approx(0.3 if name == "gradual" else 0.5, abs=0.01)
