import pytest
import torch

import laconic
from benchmarks.record_keeping import read_results
from benchmarks.scripts import confidence
from laconic import zoo
from laconic.datasets import blobs


@pytest.fixture
def _a_small_task(monkeypatch):
    data = blobs(n_train=300, n_test=600)

    def task() -> confidence.Task:
        torch.manual_seed(0)
        model = zoo.blobs_net()
        laconic.train(model, data.train.batches(50), laconic.Training(3))
        return confidence.Task(zoo.blobs_net, model.eval(), data.train, data.test)

    monkeypatch.setitem(confidence.TASKS, "blobs", task)
    monkeypatch.setitem(confidence.N_HELD_OUT, "blobs", 400)


@pytest.mark.usefixtures("_a_small_task")
def test_a_draw_counts_losses_on_new_examples_alone():
    row = confidence.run("blobs", 0.95, 3)
    _, before = confidence.begun("blobs")
    assert (len(before), before.dtype) == (600, torch.bool)
    assert row["held_out_drop"] <= confidence.DROP
    assert row["missed"] == (row["new_drop"] > confidence.DROP)
    assert (row["new_drop"] * 200) % 1 == pytest.approx(0, abs=1e-9)
    assert row["bytes"] < confidence.run("blobs", 0.999, 3)["bytes"] * 1.05


def test_the_target_is_missed_on_new_examples_in_a_tenth_of_the_draws_at_most():
    for found in read_results("confidence")["data"].values():
        row = found["confidence"]["0.95"]
        assert row["draws"] == len(confidence.DRAWS)
        assert row["missed"] <= 0.1 * row["draws"]
        assert not row["too_few_examples"]
