import math

import pytest

from laconic.description import Ledger, Measurement
from laconic.report.measurement import Quantity, Spread, Trial, by_setting, dense_float32_bits, spread
from tests.support.outcomes import PRUNED


def test_measurements_take_what_they_know_and_leave_the_rest():
    found = Measurement.from_dict(PRUNED | {"news": "of another version"})
    assert found.total_bits == 500
    assert [quantity.of(found) for quantity in Quantity] == [80, 40, 70, 50, 90, 10, 500]
    assert math.isnan(Measurement.from_dict({"score": 1}).total_bits)


def test_the_dense_size_is_that_of_the_first_network_since_others_may_be_cut():
    stages = [Measurement(ledger=Ledger((), {"dense float32": bits})) for bits in (1000.0, 300.0)]
    assert dense_float32_bits(stages) == 1000
    assert dense_float32_bits([Measurement(), *stages[1:]]) == 300
    assert math.isnan(dense_float32_bits([Measurement()]))


def test_means_and_sample_deviations():
    found = Spread((1.0, 3.0))
    assert (found.mean, found.sd) == (2, pytest.approx(math.sqrt(2)))
    assert found.text("{:.1f}") == "2.0 ± 1.4"
    assert Spread((1.0,)).text("{:.1f}") == Spread((1.0, 1.0)).text("{:.1f}") == "1.0"
    assert spread([Measurement(score=0.5)], Quantity.ACCURACY) == Spread((50.0,))


def test_settings_go_from_the_least_sparse_on():
    trials = [Trial("a", seed, Measurement(sparsity=s), str(s)) for s in (0.9, 0.5) for seed in (0, 1)]
    found = by_setting([*trials, Trial("b", 0, Measurement(sparsity=0.1))])
    assert list(found) == ["a", "b"]
    assert [[run.pruned.sparsity for run in runs] for runs in found["a"]] == [[0.5, 0.5], [0.9, 0.9]]
