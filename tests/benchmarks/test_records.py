"""The committed records decode to the networks whose errors are quoted."""

import json
import os

import pytest

from benchmarks import lenets

RUNS = [json.loads(path.read_text()) for path in (lenets.RECORDS.parent / "runs" / "lenets").glob("*.json")]


@pytest.mark.skipif("LACONIC_DATA" not in os.environ, reason="needs MNIST")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: " ".join(run["of"]))
def test_a_record_has_its_length_and_its_error(run):
    network, price, seed = run["of"]
    path = lenets.record(network, float(price), int(seed))
    assert lenets.scored(path, network) == pytest.approx(run["row"], rel=1e-4, abs=2e-4)
