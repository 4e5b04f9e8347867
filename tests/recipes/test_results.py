"""Results are read back, and told apart by what they differ in."""

import json

import pytest

from laconic.description import Measurement
from laconic.errors import FormatError
from laconic.recipes import read_results, trials
from laconic.report.measurement import by_setting
from tests.support.outcomes import PRUNED


def write(folder, name, recipe, pruned=PRUNED):
    (folder / name).mkdir()
    known = {"digest": name, "references": {}, "seconds": 1.0, "versions": {}}
    result = {**known, "recipe": recipe, "pruned": pruned, "dense": {"score": 0.95}}
    (folder / name / "result.json").write_text(json.dumps(result))


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
    found = trials(read_results(tmp_path))
    assert [(trial.method, trial.seed) for trial in found] == [
        ("lamp", 0),
        ("magnitude", 0),
        ("magnitude", 0),
        ("magnitude", 1),
    ]
    assert [len(runs) for runs in by_setting(found)["magnitude"]] in ([1, 2], [2, 1])
    assert found[0].pruned == Measurement.from_dict(PRUNED)
    assert found[0].dense.score == 0.95
    write(tmp_path, "4", {**common, "criterion": "lamp", "unit": "weight", "amount": 0.5})
    assert {trial.method for trial in trials(read_results(tmp_path))} == {
        "magnitude, weight",
        "lamp, block (height 4)",
        "lamp, weight",
    }


def test_runs_of_one_recipe_are_named_all_the_same(tmp_path):
    write(tmp_path, "0", {"method": "one-shot", "seed": 3})
    (trial,) = trials(read_results(tmp_path))
    assert (trial.method, trial.seed) == ("one-shot", 3)


@pytest.mark.parametrize("pruned", [None, {"score": "good"}])
def test_damaged_results_are_named(tmp_path, pruned):
    write(tmp_path, "bad", {}, pruned)
    with pytest.raises(FormatError, match=r"bad.result.json: expected a run's result"):
        read_results(tmp_path)
