import json
import math

import pytest

from laconic.errors import FormatError
from laconic.report.trials import Measure, Outcome, Spread, Trial, by_setting, read_trials, spread

PRUNED = {
    "accuracy": 0.9,
    "data_bits": 100.0,
    "file_bytes": 50,
    "sparsity": 0.8,
    "parameters": 40,
    "multiply_adds": 70.0,
}


def write(folder, name, recipe, pruned=PRUNED):
    (folder / name).mkdir()
    result = {"recipe": recipe, "pruned": pruned, "dense": {"accuracy": 0.95}, "seconds": 1.0}
    (folder / name / "result.json").write_text(json.dumps(result))


def test_outcomes_take_what_they_know_and_leave_the_rest():
    found = Outcome.of(PRUNED | {"news": "of another version"})
    assert found.total_bits == 500
    assert [measure.of(found) for measure in Measure] == [80, 40, 70, 50, 90, 500]
    assert math.isnan(Outcome.of({"accuracy": 1}).total_bits)


def test_means_and_sample_deviations():
    found = Spread((1.0, 3.0))
    assert (found.mean, found.sd) == (2, pytest.approx(math.sqrt(2)))
    assert found.text("{:.1f}") == "2.0 ± 1.4"
    assert Spread((1.0,)).text("{:.1f}") == Spread((1.0, 1.0)).text("{:.1f}") == "1.0"
    assert spread([Outcome(accuracy=0.5)], Measure.ACCURACY) == Spread((50.0,))


def test_settings_go_from_the_least_sparse_on():
    trials = [Trial("a", seed, Outcome(sparsity=s), str(s)) for s in (0.9, 0.5) for seed in (0, 1)]
    found = by_setting([*trials, Trial("b", 0, Outcome(sparsity=0.1))])
    assert list(found) == ["a", "b"]
    assert [[run.outcome.sparsity for run in runs] for runs in found["a"]] == [[0.5, 0.5], [0.9, 0.9]]


def test_runs_are_named_by_what_tells_them_apart_and_grouped_over_seeds(tmp_path):
    common = {"method": "one-shot", "relative_error": 0.1}
    unit = {"name": "block", "height": 4}
    for at, (criterion, more, amount, seed) in enumerate(
        [
            ("magnitude", {"unit": "weight"}, 0.5, 0),
            ("magnitude", {"unit": "weight"}, 0.5, 1),
            ("magnitude", {"unit": "weight"}, 0.9, 0),
            ("lamp", {"unit": unit, "reestimate": True}, 0.5, 0),
        ]
    ):
        write(tmp_path, str(at), {**common, "criterion": criterion, **more, "amount": amount, "seed": seed})
    trials = read_trials(tmp_path)
    assert [(trial.method, trial.seed) for trial in trials] == [
        ("lamp", 0),
        ("magnitude", 0),
        ("magnitude", 0),
        ("magnitude", 1),
    ]
    assert [len(runs) for runs in by_setting(trials)["magnitude"]] in ([1, 2], [2, 1])
    assert trials[0].outcome == Outcome.of(PRUNED)
    assert trials[0].dense.accuracy == 0.95
    write(tmp_path, "4", {**common, "criterion": "lamp", "unit": "weight", "amount": 0.5})
    assert {trial.method for trial in read_trials(tmp_path)} == {
        "magnitude, weight",
        "lamp, block (height 4)",
        "lamp, weight",
    }


def test_runs_of_one_recipe_are_named_all_the_same(tmp_path):
    write(tmp_path, "0", {"method": "one-shot", "seed": 3})
    (trial,) = read_trials(tmp_path)
    assert (trial.method, trial.seed) == ("one-shot", 3)


@pytest.mark.parametrize("pruned", [None, {"accuracy": "good"}])
def test_damaged_results_are_named(tmp_path, pruned):
    write(tmp_path, "bad", {}, pruned)
    with pytest.raises(FormatError, match=r"bad.result.json: expected a run's result"):
        read_trials(tmp_path)
