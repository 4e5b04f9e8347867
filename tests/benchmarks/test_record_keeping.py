import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from benchmarks import record_keeping
from benchmarks.record_keeping import RESULTS, once, runs
from laconic import MaxBytes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record_keeping, "RESULTS", tmp_path)
    return tmp_path


def squared(x, *_):
    return {"square": x * x}


def never(*_):
    raise AssertionError("it has run already")


def test_a_run_is_not_repeated(folder):
    assert once("some/script.py", squared, 3, MaxBytes(9)) == {"square": 9}
    assert once("some/script.py", never, 3, MaxBytes(9)) == {"square": 9}
    assert once("some/script.py", squared, 1) == {"square": 1}
    assert [run["of"] for run in runs("script")] == [["1"], ["3", "MaxBytes(n_bytes=9)"]]
    assert [path.name for path in folder.iterdir()] == ["script.runs.jsonl"]


def test_an_interrupted_write_loses_nothing(folder, monkeypatch):
    once("script", squared, 1)
    monkeypatch.setattr(Path, "replace", never)
    with pytest.raises(AssertionError):
        once("script", squared, 2)
    monkeypatch.undo()
    monkeypatch.setattr(record_keeping, "RESULTS", folder)
    assert once("script", never, 1) == {"square": 1}
    assert once("script", squared, 2) == {"square": 4}


def one(folder, x):
    record_keeping.RESULTS = folder
    return once("script", squared, x)


def test_processes_side_by_side_keep_all_their_runs(folder):
    with ProcessPoolExecutor(2) as processes:
        list(processes.map(partial(one, folder), range(12)))
    assert sorted(run["row"]["square"] for run in runs("script")) == [x * x for x in range(12)]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.runs.jsonl")), ids=lambda path: path.name)
def test_committed_runs_are_in_order_and_each_is_there_once(path):
    keys = [json.loads(line)["of"] for line in path.read_text().splitlines()]
    assert keys == sorted(keys)
    assert len({tuple(key) for key in keys}) == len(keys)
