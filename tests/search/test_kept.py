import json

import pytest
import torch

import laconic
from laconic import MaxBytes, MaxDrop, Shortest, Training, zoo
from laconic.datasets import blobs
from laconic.description import Measurement
from laconic.errors import FormatError, MismatchError
from laconic.model.evidence import Statistic, observe
from laconic.search.kept import Kept, data_identity


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    data, model = blobs(), zoo.blobs_net()
    laconic.train(model, data.train.batches(50, shuffle=True), Training(10))
    return model.eval(), list(data.train.batches(100)), list(data.test.batches())


def compressed(trained, path, target, **options):
    model, batches, test = trained
    made = []
    found = laconic.compress(model, batches, path, target, test, on_attempt=made.append, **options)
    return found, made


MEASURED = Measurement(n_bytes=4.0, score=0.5)
FIRST = {"drop": MaxDrop(0.02), "bytes": MaxBytes(350), "shortest": Shortest()}


@pytest.mark.parametrize("finetune", [None, Training(1)], ids=["rounded", "trained"])
@pytest.mark.parametrize("first", FIRST)
def test_the_next_target_gets_the_file_it_would_get_alone_by_fewer_attempts(first, finetune, trained, tmp_path):
    target = MaxBytes(300)
    alone, all_made = compressed(trained, tmp_path / "alone.lac", target, finetune=finetune)
    keep = tmp_path / "kept"
    compressed(trained, tmp_path / "a.lac", FIRST[first], keep=keep)
    found, made = compressed(trained, tmp_path / "b.lac", target, finetune=finetune, keep=keep)
    assert found.attempts == alone.attempts == tuple(all_made)
    assert (tmp_path / "b.lac").read_bytes() == (tmp_path / "alone.lac").read_bytes()
    if first != "shortest":  # the bits of labels, which only that target asks for, are another judge's
        assert len(made) <= len(all_made) - 3
    _, again = compressed(trained, tmp_path / "c.lac", target, finetune=finetune, keep=keep)
    assert again == [] and (tmp_path / "c.lac").read_bytes() == (tmp_path / "b.lac").read_bytes()
    assert not (tmp_path / "alone.lac.attempts").exists()


def test_another_judge_judges_the_kept_files_which_are_not_written_again(trained, tmp_path, monkeypatch):
    model, batches, test = trained
    keep = tmp_path / "kept"
    compressed(trained, tmp_path / "a.lac", MaxBytes(300), keep=keep)
    files = {path: path.stat().st_mtime_ns for path in keep.glob("*.lac")}
    monkeypatch.setattr("laconic.search.compress.observe", lambda *_: pytest.fail("observed again"))
    score = lambda network: laconic.evaluate(network, test[:1]).accuracy - 0.25  # noqa: E731
    made = []
    laconic.compress(model, batches, tmp_path / "b.lac", MaxBytes(300), score, on_attempt=made.append, keep=keep)
    assert len(made) == len(files) and all(path.stat().st_mtime_ns == files[path] for path in files)


OTHERS = {
    "network": lambda model, batches: (zoo.blobs_net(), batches),
    "fewer batches": lambda model, batches: (model, batches[1:]),
    "other inputs": lambda model, batches: (model, [(x + 1, y) for x, y in batches]),
    "other labels": lambda model, batches: (model, [(x, 2 - y) for x, y in batches]),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_folder_of_others_is_refused_and_left_as_it_is(other, trained, tmp_path):
    keep = tmp_path / "kept"
    compressed(trained, tmp_path / "a.lac", MaxBytes(300), keep=keep)
    before = {path.name: path.read_bytes() for path in keep.iterdir()}
    model, batches = OTHERS[other](*trained[:2])
    with pytest.raises(MismatchError, match="expected attempts at this network on these data, found another's"):
        compressed((model, batches, trained[2]), tmp_path / "b.lac", MaxBytes(300), keep=keep)
    assert {path.name: path.read_bytes() for path in keep.iterdir()} == before
    assert not (tmp_path / "b.lac").exists()


def test_a_folder_of_other_things_and_a_damaged_list_are_refused(trained, tmp_path):
    keep = tmp_path / "mine"
    keep.mkdir()
    (keep / "thesis.txt").write_text("mine")
    with pytest.raises(MismatchError, match=r"expected a folder of attempts, or an empty one, found thesis\.txt"):
        compressed(trained, tmp_path / "a.lac", MaxBytes(300), keep=keep)
    (keep / "thesis.txt").unlink()
    (keep / "attempts.json").write_text("[")
    with pytest.raises(FormatError, match=r"attempts\.json: expected a list of attempts"):
        compressed(trained, tmp_path / "a.lac", MaxBytes(300), keep=keep)


def test_only_own_files_are_removed(tmp_path):
    kept = Kept(tmp_path / "kept", "a network", "a judge")
    path = kept.file("rounded", 2.0)
    path.write_bytes(b"file")
    kept.add(path, MEASURED)
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    kept.remove()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["notes.txt"]


def test_a_file_is_told_by_how_it_was_trained_and_from_what(tmp_path):
    kept = Kept(tmp_path / "kept", "a network", "a judge")
    starts = [kept.file("rounded", 1.0), kept.file("rounded", 2.0)]
    trainings = [
        Training(1),
        Training(2),
        Training(1, seed=1),
        Training(1, optimizer=lambda ps: torch.optim.SGD(ps, 0.1)),
    ]
    files = {kept.file("trained", 4.0, training, start) for training in trainings for start in starts}
    assert len(files) == len(trainings) * len(starts)
    assert kept.file("trained", 4.0, Training(1), starts[0]) in files


def test_measurements_are_by_judge_and_of_files_that_are_there(tmp_path):
    kept = Kept(tmp_path / "kept", "a network", "a judge")
    path = kept.file("rounded", 2.0)
    kept.add(path, MEASURED)
    assert kept.measured(path) is None
    path.write_bytes(b"file")
    assert Kept(tmp_path / "kept", "a network", "a judge").measured(path) == MEASURED
    assert Kept(tmp_path / "kept", "a network", "another").measured(path) is None
    assert json.loads((tmp_path / "kept" / "attempts.json").read_text())["of"].startswith("a network, Laconic ")


def test_data_drawn_at_random_are_told_by_their_number(trained):
    examples = torch.utils.data.TensorDataset(torch.arange(64.0))
    own = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(examples, 8, shuffle=True, generator=own)
    assert data_identity(loader) == data_identity(loader) == "8 batches, the first drawn at random"
    shuffled = torch.utils.data.DataLoader(examples, 8, shuffle=True)  # by PyTorch's generator, which is seeded
    assert data_identity(shuffled) == data_identity(shuffled)
    packed = [torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])]
    assert data_identity([{"x": packed}]) != data_identity([{"x": [packed[0]._replace(data=packed[0].data * 2)]}])


def test_evidence_comes_back_whole(trained):
    model, batches, _ = trained
    needs = [Statistic.GRAM, Statistic.NORM, Statistic.SENSITIVITY]
    evidence = observe(model, batches, needs)
    again = type(evidence).from_state(evidence.to_state())
    assert again.n == evidence.n and again.forms == evidence.forms and again.tables == evidence.tables
    for statistic in needs:
        for name in evidence.found[statistic]:
            assert torch.equal(again.of(statistic, name), evidence.of(statistic, name))
