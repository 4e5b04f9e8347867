import pytest
import torch
from torch import nn

import laconic
from laconic.model.evidence import SENSITIVITY
from laconic.model.modules import eval_mode

BATCHES = [(torch.randn(8, 3), torch.arange(8) % 2)]


@pytest.fixture
def model():
    """In training, but for a batch norm whose statistics are frozen."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).train()
    model[1].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


def test_frozen_batch_norms_stay_frozen(model):
    before, mean = modes(model), model[1].running_mean.clone()
    assert laconic.evaluate(model, BATCHES).n_examples == 8
    assert modes(model) == before == [True, True, False, True, True]
    assert torch.equal(model[1].running_mean, mean)


def test_modes_are_restored_after_an_error(model):
    before = modes(model)
    with pytest.raises(RuntimeError, match="shapes"):
        laconic.evaluate(model, [(torch.randn(8, 5), torch.zeros(8))])
    assert modes(model) == before


def test_all_that_look_at_a_model_restore_its_modes(model):
    """`observe`, `count_macs` and tracing take the same way."""
    before = modes(model)
    laconic.model.observe(model, BATCHES, [SENSITIVITY])
    laconic.surgery.count_macs(model, BATCHES[0][0])
    laconic.surgery.find_channels(model, BATCHES[0][0])
    with pytest.raises(ZeroDivisionError), eval_mode(model):
        assert not any(modes(model))
        raise ZeroDivisionError
    assert modes(model) == before
