"""The committed records decode to the networks whose errors are quoted."""

import json
import os

import pytest

import laconic
from benchmarks import lenets

RUNS = [json.loads(path.read_text()) for path in (lenets.RECORDS.parent / "runs" / "lenets").glob("*.json")]


@pytest.mark.skipif("LACONIC_DATA" not in os.environ, reason="needs MNIST")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: " ".join(run["of"]))
def test_a_record_has_its_length_and_its_error(run):
    network, price, seed = run["of"]
    path = lenets.RECORDS / f"{network}-{float(price):g}-{seed}.lac"
    assert path.stat().st_size == run["row"]["bytes"]
    code = laconic.evaluate(lenets.decoded(path, network), lenets.parts()["test"].batches(1000))
    assert 1 - code.accuracy == pytest.approx(run["row"]["test_error"], abs=2e-4)
