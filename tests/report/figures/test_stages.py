import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from laconic.description import Ledger, LedgerRow, Measurement
from laconic.pruning.sensitivity import Scan
from laconic.report.figures import (
    bits_by_tensor,
    description_bars,
    frontier,
    mask_maps,
    sensitivity,
    stage_curve,
    weight_histograms,
)
from laconic.report.figures.tensors import block_means
from laconic.report.measurement import Quantity, Trial


def stage(name, sparsity, accuracy, bits, *, n_examples=100, references=None):
    model_bits, data_bits = bits
    rows = (LedgerRow("w", "weights", model_bits), LedgerRow("", "data", data_bits, measured=False, of_data=True))
    ledger = Ledger(rows, references or {}, n_examples)
    n_active = round(50_000 * (1 - sparsity))
    return Measurement(name, model_bits // 8, accuracy, data_bits, sparsity, n_active, ledger=ledger)


FLOATS = {"dense float32": 1_600_000.0}
STAGES = [
    stage("dense", 0.0, 0.97, (300_000, 300.0), references=FLOATS),
    stage("half $x", 0.5, 0.975, (9_000, 400.0), references=FLOATS),
    stage("_most", 0.99, 0.88, (4_000, 9_000.0), references=FLOATS),
]


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]


@pytest.mark.parametrize("x", [Quantity.FILE_BYTES, Quantity.PARAMETERS])
def test_dashed_line_is_the_dense_accuracy_and_the_ring_the_fewest_bits(x):
    ax = stage_curve(STAGES, x).axes[0]
    dashed, curve, ring = ax.lines
    assert list(dashed.get_ydata()) == [97.0, 97.0]
    assert list(curve.get_ydata()) == pytest.approx([97.0, 97.5, 88.0])
    assert list(ring.get_ydata()) == [97.5]


def test_active_parameters_run_from_many_to_few():
    ax = stage_curve(STAGES, Quantity.PARAMETERS).axes[0]
    left, right = ax.get_xlim()
    assert ax.get_xscale() == "log"
    assert left > 50_000
    assert right < 500


def test_an_empty_network_has_a_place_on_the_log_axis():
    stage_curve([*STAGES, stage("nothing", 1.0, 0.1, (8, 9e4))], Quantity.PARAMETERS).savefig(
        io.BytesIO(), format="svg"
    )


def test_what_a_weight_takes_rises_as_fewer_stay():
    ax = stage_curve(STAGES, Quantity.PARAMETERS, Quantity.BITS_EACH).axes[0]
    curve, ring = ax.lines
    assert list(curve.get_ydata()) == pytest.approx([6.0, 0.36, 8.0])
    assert list(ring.get_ydata()) == pytest.approx([0.36])


def test_points_carry_what_a_page_says_of_them():
    (points,) = stage_curve(STAGES).axes[0].collections
    assert points.get_urls()[1] == "#half $x: 97.50% right, 1,125 bytes, 25,000 active parameters"


def test_bars_add_up_and_the_shortest_is_marked():
    figure = description_bars(STAGES)
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([300, 0.3, 9, 0.4, 4, 9])
    assert [bar.get_x() for bar in ax.patches[1::2]] == pytest.approx([300, 9, 4])
    assert {"half $x (fewest)", "9.00 + 0.40"} <= set(texts(figure))
    assert any("float32 would take 1,600" in text for text in texts(figure))


def test_bytes_by_tensor_add_up_to_the_file_and_sum_what_is_small():
    rows = [LedgerRow(f"t{i}", part, 80 + i) for i in range(9) for part in "abcdef"]
    ledger = Ledger((*rows, LedgerRow("", "header", 96), LedgerRow("", "data", 5, False, True)))
    figure = bits_by_tensor(ledger)
    (ax,) = figure.axes
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(ledger.model_bits / 8)
    named = [text for text in texts(figure) if text.startswith("t") or text.startswith(("all", "the"))]
    assert named == ["t8", "t7", "t6", "t5", "t4", "t3", "all others", "the file as a whole"]
    assert "other parts" in texts(figure)


def test_totals_of_different_data_are_not_compared():
    with pytest.raises(ValueError, match=r"same data, found \[0, 100\] examples"):
        description_bars([STAGES[0], stage("no data", 0.5, 0.9, (80, 0.0), n_examples=0)])


def test_histograms_count_every_active_weight_and_no_other():
    before = {"a": torch.randn(70, 30), "b": torch.ones(5), "zero": torch.zeros(4)}
    after = {"a": before["a"] * (before["a"].abs() > 1), "b": torch.ones(5), "zero": torch.zeros(4)}
    figure = weight_histograms(before, after)
    for ax, name in zip(figure.axes, after, strict=True):
        counts = [patch.get_data().values.sum() for patch in ax.patches]
        n_active = [int(torch.count_nonzero(tensors[name])) for tensors in (before, after)]
        assert counts == ([] if name == "zero" else n_active)
    assert "b: 5 of 5 active" in texts(figure)
    assert "no active weights" in texts(figure)


def test_histograms_of_many_tensors_leave_out_the_smallest_and_say_so():
    tensors = {f"t{i}": torch.ones(20 - i) for i in range(15)}
    figure = weight_histograms(tensors, tensors)
    assert len(figure.axes) == 4
    assert "The 4 largest tensors; 11 smaller ones are left out." in texts(figure)
    assert not any(text.startswith("t4") for text in texts(figure))


def test_long_names_that_differ_in_the_middle_stay_apart():
    names = [f"transformer.layers.{at}.attention.query_projection.weight" for at in range(2)]
    titles = texts(mask_maps({name: torch.ones(2, 2) for name in names}))
    for name in names:
        assert any(text.startswith(name) for text in titles)


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
    assert "conv: 2.1 % kept" in texts(figure)


def trials(accuracies, method="a"):
    """Two seeds at each sparsity, a point to both sides."""
    return [
        Trial(method, seed, Measurement(score=a + seed / 100, sparsity=s, n_bytes=1e5 * (1 - s)), str(s))
        for s, a in accuracies.items()
        for seed in (-1, 1)
    ]


FLAT, STEEP = trials({0.5: 0.92, 0.9: 0.9}), trials({0.5: 0.9, 0.99: 0.3}, "b $x")


def test_a_frontier_joins_means_over_seeds_at_what_is_left():
    figure = frontier(FLAT)
    (ax,) = figure.axes
    line = next(line for line in ax.lines if line.get_label() == "a")
    assert list(line.get_xdata()) == pytest.approx([50, 10])
    assert list(line.get_ydata()) == pytest.approx([92, 90])
    bars = [found for found in ax.collections if hasattr(found, "get_segments")]
    reach = [segments.get_segments()[0][:, 1] for segments in bars]
    assert any(np.allclose(ends, [92 - 2**0.5, 92 + 2**0.5]) for ends in reach)
    left, right = ax.get_xlim()
    assert left > right  # what is left shrinks to the right
    figure.canvas.draw()
    assert {"50", "80", "90"} <= {tick.get_text() for tick in ax.get_xticklabels()}


def test_the_top_of_a_frontier_is_magnified_where_others_fall_far():
    whole, top = frontier([*FLAT, *STEEP]).axes
    assert whole.get_ylim()[0] < 30
    assert top.get_ylim() == pytest.approx((88, 93.5))
    assert len(frontier([*FLAT, *STEEP], y=Quantity.FILE_BYTES).axes) == 1


def test_the_legend_names_every_method_and_the_dense_networks_mean():
    dense = [
        Trial("a", i, Measurement(score=0.9, sparsity=0.5), "", Measurement(score=a)) for i, a in enumerate((0.9, 0.94))
    ]
    found = texts(frontier([*dense, *STEEP], Quantity.SPARSITY))
    assert {"a", "b $x", "dense network: 92.00 %"} <= set(found)


def test_methods_differ_in_more_than_colour():
    ax = frontier([t for i in range(30) for t in trials({0.5: 0.9}, f"m{i}")]).axes[0]
    lines = [line for line in ax.lines if line.get_label().startswith("m")]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 30


@pytest.mark.parametrize("x", [Quantity.SPARSITY, Quantity.PARAMETERS, Quantity.FILE_BYTES])
def test_an_empty_network_has_a_place_on_a_frontier(x):
    nothing = Trial("a", 0, Measurement(score=0.1, data_bits=9.0, n_bytes=0, sparsity=1.0, n_parameters=0, n_macs=0))
    frontier([nothing], x, Quantity.TOTAL_BITS).savefig(io.BytesIO(), format="svg")


def test_what_a_trial_does_not_know_is_not_drawn():
    with pytest.raises(ValueError, match="a: expected a finite multiply–adds an example, found nan"):
        frontier(FLAT, Quantity.MULTIPLY_ADDS)


def cells(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_sensitivity_writes_values_and_shades_by_harm():
    scan = Scan(("a", "b $x"), (0.5, 0.9), ((0.91, 0.5), (0.9, float("nan"))), dense=0.9)
    figure = sensitivity(scan)
    assert cells(figure) == ["91.0", "50.0", "90.0", "nan"]
    shades = figure.axes[0].collections[0].get_array().ravel()
    assert list(shades) == [0, 1, 0, 1]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["a", "b $x"]
    assert any("90.0 with none.\nHigher is better" in text for text in texts(figure))


def test_sensitivity_to_losses_is_in_common_units():
    scan = Scan(("a",), (0.5, 0.9), ((91_234.0, 400_000.0),), dense=90_000.0)
    figure = sensitivity(scan, lower_is_better=True)
    assert cells(figure) == ["91.2", "400.0"]
    assert any("(thousands)" in text and "Lower is better" in text for text in texts(figure))


def test_names_of_many_tensors_stay_apart_and_the_most_sensitive_are_drawn():
    names = tuple(f"transformer.layers.{i}.attention.self.query_projection.weight" for i in range(70))
    scan = Scan(names, (0.5,), tuple((1 - i / 100,) for i in range(70)), dense=1.0)
    figure = sensitivity(scan)
    shown = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert shown == [name.removeprefix("transformer.layers.") for name in names[6:]]
    assert any("64 most sensitive tensors; 6 others are left out" in text for text in texts(figure))
    assert any("All names begin with transformer.layers." in text for text in texts(figure))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: stage_curve([]), "stages: expected at least one Measurement"),
        (lambda: bits_by_tensor(Ledger(())), "ledger: expected rows of a file"),
        (lambda: description_bars([]), "stages: expected at least one Measurement"),
        (lambda: weight_histograms({}, {}), "after: expected at least one tensor"),
        (lambda: frontier([]), "trials: expected at least one Trial"),
        (lambda: sensitivity(Scan((), (0.5,), (), 1.0)), "scan: expected at least one tensor"),
        (lambda: mask_maps({"empty": torch.zeros(0, 3)}), "masks: expected at least one mask"),
    ],
)
def test_nothing_to_draw_says_what_is_expected(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_a_single_stage_is_drawn():
    for draw in (stage_curve, description_bars):
        assert isinstance(draw(STAGES[:1]), Figure)
