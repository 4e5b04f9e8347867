import copy
import math

import pytest
import torch
from torch import nn

import laconic
from laconic.description.ledger import BIT_EACH, DENSE
from laconic.errors import FormatError
from laconic.model import Objective
from laconic.model.evidence import SENSITIVITY
from laconic.model.modules import eval_mode


@pytest.fixture
def model():
    net = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 4))
    laconic.prune_(net, 0.8)
    return net


@pytest.fixture
def batches():
    return [(torch.randn(n, 20), torch.randint(0, 4, (n,))) for n in (50, 50, 7)]


def test_measured_rows_add_up_to_the_file(model, tmp_path):
    n_bytes = laconic.save(model, tmp_path / "m.lac")
    ledger = laconic.describe(tmp_path / "m.lac")
    assert ledger.model_bits == 8 * n_bytes == 8 * (tmp_path / "m.lac").stat().st_size
    assert sum(ledger.by_tensor().values()) == sum(ledger.by_part().values()) == 8 * n_bytes
    assert set(ledger.by_tensor()) == {"", *model.state_dict()}
    assert ledger.data_bits == 0
    assert ledger.total_bits == ledger.model_bits


def test_a_model_is_described_by_the_file_it_makes(model, batches, tmp_path):
    laconic.save(model, tmp_path / "m.lac")
    before = copy.deepcopy(model.state_dict())
    ours = laconic.describe(model, batches)
    assert ours == laconic.describe(tmp_path / "m.lac", batches, into=model)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items()), "the model is unchanged"
    assert model.training


def test_data_bits_are_those_of_the_decoded_network(model, batches, tmp_path):
    coarse = laconic.quantization.Grid(0.9)
    laconic.save(model, tmp_path / "m.lac", coarse)
    decoded = laconic.load(tmp_path / "m.lac", into=copy.deepcopy(model)).eval()
    decoded.requires_grad_(False)
    expected = sum(
        float(-torch.log2(decoded(x).double().softmax(1)[torch.arange(len(y)), y]).sum()) for x, y in batches
    )
    ledger = laconic.describe(model, batches, quantizer=coarse)
    assert ledger.data_bits == pytest.approx(expected)
    assert ledger.data_bits != pytest.approx(laconic.evaluate(model, batches).bits)
    assert ledger.n_examples == 107
    assert ledger.total_bits == ledger.model_bits + ledger.data_bits


def test_references_are_labelled_and_enter_no_total(model):
    ledger = laconic.describe(model, quantizer=None)
    n_state = sum(t.numel() for t in model.state_dict().values())
    n_active = sum(int(t.count_nonzero()) for t in model.state_dict().values() if t.is_floating_point())
    assert ledger.references == {DENSE: 32 * n_state, BIT_EACH: n_active}
    assert ledger.total_bits == sum(row.bits for row in ledger.rows)


def test_the_table_and_the_dict_say_the_same(model, batches):
    ledger = laconic.describe(model, batches)
    text, plain = str(ledger), ledger.to_dict()
    assert f"{ledger.total_bits:,.0f}" in text
    assert "ideal code" in text
    assert "for reference" in text
    assert max(map(len, text.splitlines())) <= 80
    assert plain["model_bits"] == sum(row["bits"] for row in plain["rows"] if row["measured"])
    assert plain["total_bits"] == ledger.total_bits


def test_a_file_needs_a_model_for_its_data(model, batches, tmp_path):
    laconic.save(model, tmp_path / "m.lac")
    with pytest.raises(ValueError, match="into="):
        laconic.describe(tmp_path / "m.lac", batches)
    (tmp_path / "bad.lac").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="bad.lac"):
        laconic.describe(tmp_path / "bad.lac")


def test_evaluate_counts_bits_and_hits():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]))
    code = laconic.evaluate(nn.Identity(), [(logits, torch.tensor([0, 0]))])
    assert code.bits == pytest.approx(1 + 3)
    assert (code.n_examples, code.n_right, code.accuracy) == (2, 1, 0.5)
    certain = laconic.evaluate(nn.Identity(), [(torch.tensor([[800.0, 0.0]]), torch.tensor([1]))])
    assert certain.bits == pytest.approx(800 / math.log(2)), "a wrong certainty costs what it costs, not infinity"
    assert math.isnan(laconic.evaluate(nn.Identity(), []).accuracy)


def test_other_likelihoods():
    def gaussian_nats(outputs, targets):
        return 0.5 * ((outputs - targets) ** 2 + math.log(2 * math.pi))

    batch = (torch.zeros(5, 1), torch.ones(5, 1))
    code = laconic.evaluate(nn.Identity(), [batch], Objective(gaussian_nats))
    assert code.bits == pytest.approx(5 * 0.5 * (1 + math.log(2 * math.pi)) / math.log(2))
    assert code.n_right is None
    assert code.score == pytest.approx(-0.5 * (1 + math.log(2 * math.pi)))


def test_regression_is_scored_by_its_loss():
    code = laconic.evaluate(nn.Identity(), [(torch.zeros(5, 2), torch.full((5, 2), 3.0))])
    assert (code.n_labels, code.loss, code.score) == (10, pytest.approx(9), pytest.approx(-9))
    assert math.isnan(code.accuracy)


def test_pixels_are_labels():
    logits = torch.zeros(2, 3, 4, 4)
    logits[:, 1] = 1
    code = laconic.evaluate(nn.Identity(), [(logits, torch.ones(2, 4, 4, dtype=torch.int64))])
    assert (code.n_examples, code.n_labels, code.accuracy) == (2, 32, 1)


BATCHES = [(torch.randn(8, 3), torch.arange(8) % 2)]


@pytest.fixture
def half_frozen():
    """In training, but for a batch norm whose statistics are frozen."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).train()
    model[1].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


def test_frozen_batch_norms_stay_frozen(half_frozen):
    before, mean = modes(half_frozen), half_frozen[1].running_mean.clone()
    assert laconic.evaluate(half_frozen, BATCHES).n_examples == 8
    assert modes(half_frozen) == before == [True, True, False, True, True]
    assert torch.equal(half_frozen[1].running_mean, mean)


def test_modes_are_restored_after_an_error(half_frozen):
    before = modes(half_frozen)
    with pytest.raises(RuntimeError, match="shapes"):
        laconic.evaluate(half_frozen, [(torch.randn(8, 5), torch.zeros(8))])
    assert modes(half_frozen) == before


def test_all_that_look_at_a_model_restore_its_modes(half_frozen):
    """`observe`, `count_macs` and tracing take the same way."""
    before = modes(half_frozen)
    laconic.model.observe(half_frozen, BATCHES, [SENSITIVITY])
    laconic.surgery.count_macs(half_frozen, BATCHES[0][0])
    laconic.surgery.find_channels(half_frozen, BATCHES[0][0])
    with pytest.raises(ZeroDivisionError), eval_mode(half_frozen):
        assert not any(modes(half_frozen))
        raise ZeroDivisionError
    assert modes(half_frozen) == before
