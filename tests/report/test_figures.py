import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from laconic.description.ledger import Ledger, LedgerRow
from laconic.report.figures import (
    accuracy_by_active,
    accuracy_by_sparsity,
    description_bars,
    mask_maps,
    weight_histograms,
)
from laconic.report.stage import Stage
from laconic.report.tensor_figures import block_means


def stage(name, sparsity, accuracy, bits, *, n_cases=100, references=None):
    model_bits, data_bits = bits
    rows = (LedgerRow("w", "weights", model_bits), LedgerRow("", "data", data_bits, measured=False))
    ledger = Ledger(rows, references or {}, n_cases)
    n_active = round(50_000 * (1 - sparsity))
    return Stage(name, sparsity, n_active, accuracy, model_bits // 8, ledger)


FLOATS = {"dense float32": 1_600_000.0}
STAGES = [
    stage("dense", 0.0, 0.97, (300_000, 300.0), references=FLOATS),
    stage("half $x", 0.5, 0.975, (9_000, 400.0), references=FLOATS),
    stage("_most", 0.99, 0.88, (4_000, 9_000.0), references=FLOATS),
]


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]


@pytest.mark.parametrize("draw", [accuracy_by_sparsity, accuracy_by_active])
def test_dashed_line_is_the_dense_accuracy_and_the_ring_the_fewest_bits(draw):
    ax = draw(STAGES).axes[0]
    dashed, curve, ring = ax.lines
    assert list(dashed.get_ydata()) == [97.0, 97.0]
    assert list(curve.get_ydata()) == pytest.approx([97.0, 97.5, 88.0])
    assert list(ring.get_ydata()) == [97.5]


def test_active_parameters_run_from_many_to_few():
    ax = accuracy_by_active(STAGES).axes[0]
    left, right = ax.get_xlim()
    assert ax.get_xscale() == "log"
    assert left > 50_000
    assert right < 500


def test_an_empty_network_has_a_place_on_the_log_axis():
    accuracy_by_active([*STAGES, stage("nothing", 1.0, 0.1, (8, 9e4))]).savefig(io.BytesIO(), format="svg")


def test_bars_add_up_and_the_shortest_is_marked_and_magnified():
    figure = description_bars(STAGES)
    everything, magnified = figure.axes
    widths = [bar.get_width() for bar in everything.patches]
    assert widths == pytest.approx([300, 0.3, 9, 0.4, 4, 9])
    assert [bar.get_x() for bar in everything.patches[1::2]] == pytest.approx([300, 9, 4])
    assert len(magnified.patches) == 4
    assert "half $x (fewest bits)" in texts(figure)
    assert any("1,600.0 kbit" in text for text in texts(figure))
    assert max(everything.get_xlim()) < 400  # the float32 reference stays off the axis


def test_totals_of_different_data_are_not_compared():
    with pytest.raises(ValueError, match=r"same data, found \[0, 100\] cases"):
        description_bars([STAGES[0], stage("no data", 0.5, 0.9, (80, 0.0), n_cases=0)])


def test_histograms_count_every_active_weight_and_no_other():
    before = {"a": torch.randn(70, 30), "b": torch.ones(5), "zero": torch.zeros(4)}
    after = {"a": before["a"] * (before["a"].abs() > 1), "b": torch.ones(5), "zero": torch.zeros(4)}
    figure = weight_histograms(before, after)
    for ax, name in zip(figure.axes, after, strict=True):
        counts = [patch.get_data().values.sum() for patch in ax.patches]
        n_active = [int(torch.count_nonzero(tensors[name])) for tensors in (before, after)]
        assert counts == ([] if name == "zero" else n_active)
    assert "b\n5 of 5 active" in texts(figure)
    assert "no active weights" in texts(figure)


def test_histograms_of_many_tensors_leave_out_the_smallest_and_say_so():
    tensors = {f"t{i}": torch.ones(20 - i) for i in range(15)}
    figure = weight_histograms(tensors, tensors)
    assert len(figure.axes) == 12
    assert "The 12 largest tensors; the 3 smallest are left out." in texts(figure)
    assert not any(text.startswith("t12") for text in texts(figure))


def test_long_names_that_differ_in_the_middle_stay_apart():
    names = [f"transformer.layers.{at}.attention.query_projection.weight" for at in range(2)]
    titles = texts(mask_maps({name: torch.ones(2, 2) for name in names}))
    for name in names:
        assert any(text.replace("\n", "").startswith(name) for text in titles)


def test_histograms_refuse_weights_that_are_not_finite_and_unknown_tensors():
    nan = {"a": torch.tensor([1.0, float("nan")])}
    with pytest.raises(ValueError, match="a: expected finite weights, found 1 not"):
        weight_histograms(nan, nan)
    with pytest.raises(ValueError, match="lacks a"):
        weight_histograms({}, nan)


def test_block_means_keep_the_mean_and_ragged_edges_weigh_what_they_hold():
    mask = np.random.default_rng(0).random((1024, 2048)) < 0.3
    assert block_means(mask).shape == (512, 512)
    assert block_means(mask).mean() == pytest.approx(mask.mean(), abs=1e-12)
    ragged = np.array([[True, False, True, False, True]])
    assert block_means(ragged, max_side=3).tolist() == [[0.5, 0.5, 1.0]]
    assert block_means(ragged).tolist() == ragged.astype(float).tolist()


def test_mask_maps_are_out_by_in_with_kept_dark():
    conv = torch.zeros(4, 3, 2, 2, dtype=torch.bool)
    conv[1, 2, 0, 1] = True
    figure = mask_maps({"conv": conv, "bias": torch.ones(6, dtype=torch.bool)})
    images = [ax.images[0] for ax in figure.axes]
    assert [image.get_array().shape for image in images] == [(4, 12), (1, 6)]
    assert np.argwhere(images[0].get_array() == 1).tolist() == [[1, 2 * 4 + 1]]
    pruned, kept = (sum(images[0].cmap(share)[:3]) for share in (0.0, 1.0))
    assert kept < 1
    assert pruned > 2
    assert "conv\n2.1 % kept" in texts(figure)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: accuracy_by_sparsity([]), "stages: expected at least one Stage"),
        (lambda: accuracy_by_active([]), "stages: expected at least one Stage"),
        (lambda: description_bars([]), "stages: expected at least one Stage"),
        (lambda: weight_histograms({}, {}), "after: expected at least one tensor"),
        (lambda: mask_maps({"empty": torch.zeros(0, 3)}), "masks: expected at least one mask"),
    ],
)
def test_nothing_to_draw_says_what_is_expected(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_a_single_stage_is_drawn():
    for draw in (accuracy_by_sparsity, accuracy_by_active, description_bars):
        assert isinstance(draw(STAGES[:1]), Figure)
