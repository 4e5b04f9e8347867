import copy
import re
from functools import partial

import pytest
import torch

import laconic
from laconic import MaxBytes, MaxDrop, Shortest, Training, zoo
from laconic.datasets import blobs, digits
from laconic.errors import MismatchError


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    data, model = digits(), zoo.digits_net()
    laconic.train(model, data.train.batches(64, shuffle=True), Training(4))
    return model.eval(), data


def accuracy(data, model):
    return laconic.evaluate(model, data.test.batches()).accuracy


TARGETS = {"drop": MaxDrop(0.02), "bytes": MaxBytes(4000), "shortest": Shortest()}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_met_by_the_decoded_file(name, trained, tmp_path):
    model, data = trained
    before = copy.deepcopy(model.state_dict())
    seen = []
    path, target = tmp_path / "net.lac", TARGETS[name]
    score = partial(accuracy, data)
    found = laconic.compress(model, data.train.batches(500), path, target, score, on_attempt=seen.append)
    decoded = laconic.load(path, into=zoo.digits_net()).eval()
    assert path.stat().st_size == found.chosen.measured.n_bytes
    assert accuracy(data, decoded) == found.chosen.measured.score
    assert found.misses == 0 and tuple(seen) == found.attempts
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["net.lac"]
    marked = re.findall(r"→ +(.*)", str(found))
    assert len(marked) == 1 and marked[0].startswith(found.chosen.how)
    assert f" {found.chosen.measured.n_bytes:,} " in marked[0] and "meets" in str(found)
    assert "Judged by the function accuracy." in str(found) and not found.warnings


def test_training_under_the_code_makes_it_shorter(trained, tmp_path):
    model, data = trained
    batches, score = data.train.batches(64, shuffle=True), partial(accuracy, data)
    rounded = laconic.compress(model, batches, tmp_path / "a.lac", MaxDrop(0.03), score)
    tuned = laconic.compress(model, batches, tmp_path / "b.lac", MaxDrop(0.03), score, Training(2))
    assert tuned.chosen.how == "trained" and tuned.misses == 0
    assert tuned.chosen.measured.n_bytes < 0.8 * rounded.chosen.measured.n_bytes
    assert accuracy(data, laconic.load(tmp_path / "b.lac", into=zoo.digits_net())) == tuned.chosen.measured.score


def test_neurons_that_nothing_reads_are_cut_and_the_file_still_fills_the_dense_network(tmp_path):
    data = blobs()
    torch.manual_seed(0)
    model = zoo.blobs_net()
    laconic.train(model, data.train.batches(50, shuffle=True), Training(20))
    found = laconic.compress(
        model, data.train.batches(50, shuffle=True), tmp_path / "net.lac", Shortest(), finetune=Training(20)
    )
    decoded = laconic.load(tmp_path / "net.lac", into=zoo.blobs_net())
    assert found.chosen.how == "trained" and len(decoded.fc1.weight) < 50


def test_a_network_on_grids_keeps_them_and_loses_nothing(trained, tmp_path):
    model, data = trained
    batches, score = data.train.batches(500), partial(accuracy, data)
    laconic.compress(model, batches, tmp_path / "a.lac", MaxBytes(3000), score)
    rounded = laconic.load(tmp_path / "a.lac", into=zoo.digits_net()).eval()
    found = laconic.compress(rounded, batches, tmp_path / "b.lac", MaxDrop(0.0), score)
    assert found.chosen.measured.n_bytes <= (tmp_path / "a.lac").stat().st_size
    assert found.misses == 0 and found.chosen.measured.score >= accuracy(data, rounded)


def test_a_score_that_constant_networks_have_not(trained, tmp_path):
    model, data = trained
    batches = data.train.batches(500)

    def score(network):
        outputs = torch.cat([network(inputs) for inputs, _ in data.test.batches()])
        return float("nan") if outputs.std() == 0 else accuracy(data, network)

    found = laconic.compress(model, batches, tmp_path / "net.lac", MaxDrop(0.05), score)
    assert found.misses == 0 and found.chosen.measured.n_bytes < 10_000
    with pytest.raises(ValueError, match="finite score of the network itself, found NaN"):
        laconic.compress(model, batches, tmp_path / "x.lac", MaxDrop(0.05), lambda _: float("nan"))


def test_an_interrupted_search_goes_on(trained, tmp_path):
    model, data = trained
    batches, score, path = data.train.batches(500), partial(accuracy, data), tmp_path / "net.lac"
    whole = laconic.compress(model, batches, tmp_path / "whole.lac", MaxBytes(4000), score)
    calls = []

    def interrupt(attempt):
        calls.append(attempt)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        laconic.compress(model, batches, path, MaxBytes(4000), score, on_attempt=interrupt)
    assert not path.exists()
    with pytest.raises(MismatchError, match="another's"):
        laconic.compress(zoo.digits_net(), batches, path, MaxBytes(4000), score)
    found = laconic.compress(model, batches, path, MaxBytes(4000), score, on_attempt=calls.append)
    assert tuple(calls) == found.attempts == whole.attempts
    assert path.read_bytes() == (tmp_path / "whole.lac").read_bytes()


def test_a_target_that_cannot_be_met_is_said_to_be_missed(trained, tmp_path):
    model, data = trained
    found = laconic.compress(model, data.train.batches(500), tmp_path / "net.lac", MaxBytes(100))
    assert found.misses == found.chosen.measured.n_bytes - 100 > 0
    assert "misses" in str(found)
