import copy

import pytest
import torch
from torch import nn

import laconic
from laconic.core.text import short
from laconic.report import compare_tensors
from laconic.surgery.plan import Coupling, Group
from tests.support.nets import Net, part

INPUTS = torch.randn(2, 16, 4, 4)
HIDDEN = Coupling((Group("0", (part("0.weight", 0, 6), part("0.bias", 0, 6), part("2.weight", 1, 6))),), refused={})


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def test_zeros_save_multiply_adds_only_for_kernels_that_skip_them():
    dense = Net()
    model = copy.deepcopy(dense)
    mask = laconic.prune_(model, 0.75)
    found = compare_tensors(dense, model, INPUTS)
    for row in found.rows:
        uses = laconic.surgery.count_macs(dense, INPUTS)[row.name]
        assert row.n_kept == int(mask[row.name].sum())
        assert row.macs_dense == row.macs_now == uses * row.n_dense
        assert row.macs_of_nonzeros == uses * row.n_kept
        assert row.shapes == "×".join(map(str, mask[row.name].shape))
    assert [row.name for row in found.rows] == list(laconic.model.compressible(dense))  # the tied one once
    assert found.total.n_dense == sum(p.numel() for p in dense.parameters())


def test_a_cut_saves_them_for_all_and_takes_what_hangs_on_it():
    dense = mlp()
    kept = {"0.weight": torch.ones(6, 4, dtype=torch.bool)}
    kept["0.weight"][:2] = False
    small = laconic.shrink(dense, laconic.surgery.Plan.of(HIDDEN, kept, dense))
    first, second = compare_tensors(dense, small, torch.randn(5, 4)).rows
    assert (first.shapes, second.shapes) == ("6×4 → 4×4", "3×6 → 3×4")
    assert (first.macs_dense, first.macs_now, first.macs_of_nonzeros) == (24, 16, 16)
    assert second.fraction_pruned == pytest.approx(1 / 3)
    rest = compare_tensors(dense, small).rest
    assert (rest.n_dense, rest.n_kept) == (9, 7)


def test_a_bypassed_block_is_gone():
    dense = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    small = nn.Sequential(copy.deepcopy(dense[0]), laconic.surgery.Bypass())
    row = compare_tensors(dense, small, torch.randn(2, 4)).rows[1]
    assert (row.shapes, row.n_kept, row.macs_now, row.fraction_pruned) == ("4×4 → gone", 0, 0, 1)


def test_biases_that_are_zero_by_themselves_are_not_pruned():
    model = mlp()
    nn.init.zeros_(model[0].bias)
    assert compare_tensors(model, model).total.fraction_pruned == 0


def test_bytes_add_up_to_the_file(tmp_path):
    model = Net()
    n_bytes = laconic.save(model, tmp_path / "net.lac")
    ledger = laconic.describe(tmp_path / "net.lac")
    found = compare_tensors(model, model, ledger=ledger)
    assert found.total.file_bytes == n_bytes
    tied = next(row for row in found.rows if row.name == "fc1.weight")
    assert 8 * tied.file_bytes == ledger.by_tensor()["fc1.weight"] + ledger.by_tensor()["fc2.weight"]


@pytest.mark.parametrize("with_macs", [True, False])
def test_the_table_fits_80_columns_and_names_stay_whole(with_macs):
    model = laconic.zoo.resnet20()
    small = copy.deepcopy(model)
    small.layer3[2].conv1 = nn.Conv2d(64, 63, 3, padding=1, bias=False)
    small.layer3[2].bn1 = nn.BatchNorm2d(63)
    small.layer3[2].conv2 = nn.Conv2d(63, 64, 3, padding=1, bias=False)
    inputs = torch.randn(1, 3, 32, 32) if with_macs else None
    for now in (model, small):
        text = str(compare_tensors(model, now, inputs, laconic.describe(now)))
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        assert text.replace("\n.", ".").count(".conv1") >= 9
        assert ("MACs" in text) == with_macs


def test_tensors_that_are_not_the_dense_ones_are_refused():
    other = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(laconic.errors.MismatchError, match=r"0.weight: tensor is \(8, 4\), the dense one \(6, 4\)"):
        compare_tensors(mlp(), other)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999.4, "999"), (999.9, "1k"), (2_359_296, "2.36M"), (4.1e9, "4.1G")]
)
def test_numbers_are_short(value, text):
    assert short(value) == text
