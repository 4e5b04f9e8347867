"""`laconic prune`, from its arguments to its table."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from laconic.cli import main
from laconic.recipes import run as run_module

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"
MINE = """
import torch
from laconic import datasets, zoo

network = zoo.blobs_net
everything = lambda: datasets.blobs(n_train=200, n_test=100)
train = lambda: list(everything().train.batches(50))
test = lambda: list(everything().test.batches(50))
pair = lambda: (train(), test())
number = lambda: 3
constant = 3
"""
QUICK = "amount = 0.8\ndense = {epochs = 3}\ntraining = {epochs = 2}\n"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main.main(["prune", *map(str, arguments)])
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(main.sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "quick.toml").write_text(QUICK)
    (tmp_path / "more.toml").write_text(QUICK.replace("0.8", "0.9"))
    return tmp_path


@pytest.mark.parametrize(
    ("example", "accuracy", "expected"), [("magnitude", 0.95, {"sparsity": 0.9}), ("channels", 0.95, {"n_macs": 0.5})]
)
def test_examples_run_from_end_to_end(here, capsys, example, accuracy, expected):
    arguments = [
        EXAMPLES / f"{example}.toml", "--model", "laconic.zoo:digits_net", "--data", "laconic.datasets:digits"
    ]  # fmt: skip
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    (path,) = here.glob("runs/*/result.json")
    assert f"{path.parent.relative_to(here) / 'report.html'}" in out
    assert (path.parent / "report.html").exists()
    found = json.loads(path.read_text())
    for side in ("dense", "pruned"):
        assert f"{found[side]['n_bytes']:,.0f}" in out
        assert f"{100 * found[side]['score']:.2f}" in out
    assert found["pruned"]["score"] > accuracy
    if "sparsity" in expected:
        assert found["pruned"]["sparsity"] == pytest.approx(0.9, abs=0.005)
    else:
        assert 0.4 < found["pruned"]["n_macs"] / found["dense"]["n_macs"] <= 0.5


def test_many_seeds_have_a_spread_and_many_recipes_a_line_each(here, capsys):
    source = ["--model", "mine:network", "--data", "mine:everything", "--seeds", "0,1"]
    code, out, _ = run(capsys, "quick.toml", *source)
    assert code == 0
    assert len(re.findall(r"accuracy % +\S+ ± \S+ +\S+ ± \S+", out)) == 1
    digests = {path.parent.name for path in here.glob("runs/*/result.json")}
    assert len(digests) == 2
    code, out, _ = run(capsys, "quick.toml", "more.toml", *source)
    assert code == 0
    lines = [line for line in out.splitlines() if re.match(r" (quick|more) ", line)]
    assert [line.count("±") for line in lines] == [2, 2]  # of accuracies and of bytes
    assert max(map(len, out.splitlines())) <= 80
    assert "quick" in (here / "runs" / "frontier.html").read_text()
    assert digests < {path.parent.name for path in here.glob("runs/*/result.json")}


def test_the_cases_to_judge_by_may_come_apart(here, capsys):
    assert run(capsys, "quick.toml", "--model", "mine:network", "--data", "mine:pair")[0] == 0
    separate = ["--data", "mine:train", "--test", "mine:test"]
    assert run(capsys, "quick.toml", "--model", "mine:network", *separate)[0] == 0
    assert len(list(here.glob("runs/*/result.json"))) == 2


def test_ctrl_c_says_that_the_same_command_goes_on(here, capsys, monkeypatch):
    arguments = ["quick.toml", "--model", "mine:network", "--data", "mine:everything"]
    with monkeypatch.context() as patched:
        patched.setattr(run_module.ProgressBar, "__call__", lambda bar, progress: os.kill(os.getpid(), signal.SIGINT))
        code, _, err = run(capsys, *arguments)
    assert code == 130
    assert err == "laconic: interrupted; runs keeps what was trained, and the same command goes on from there\n"
    assert run(capsys, *arguments)[0] == 0


FINE = {"--model": "mine:network", "--data": "mine:everything"}
WRONG = {
    "no colon": ({"--model": "mine"}, "--model: expected MODULE:NAME, found 'mine'"),
    "no module": ({"--model": "min:network"}, "--model: expected a module 'min', found none named 'min'; did you mean 'mine'?"),
    "no inner module": (
        {"--data": "laconic.dataset:digits"},
        "--data: expected a module 'laconic.dataset', found none named 'laconic.dataset'; did you mean 'datasets'?",
    ),
    "no package": ({"--data": "mine.data:digits"}, "--data: expected a module 'mine.data', found none named 'mine.data'"),
    "no outer module": ({"--data": "mime.data:digits"}, "found none named 'mime'; did you mean 'mine'?"),
    "no such name": ({"--model": "mine:netwrk"}, "--model: expected 'netwrk' in mine, found none; did you mean 'network'?"),
    "no function": ({"--model": "mine:constant"}, "--model: expected a function, found mine:constant to be a int"),
    "no model": ({"--model": "mine:number"}, "--model: expected an nn.Module, found a int"),
    "no test": ({"--data": "mine:train"}, "--data: expected a Dataset or a pair (train, test), found a list; or give"),
    "seeds": ({"--seeds": "1,x"}, "--seeds: expected whole numbers such as 0,1,2 or 0-2, found 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_references_are_one_line_with_the_nearest_name(here, capsys, case):
    options, message = WRONG[case]
    code, _, err = run(capsys, "quick.toml", *(part for item in {**FINE, **options}.items() for part in item))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (here / "runs").exists()


def test_a_wrong_recipe_is_refused_before_any_is_run(here, capsys):
    (here / "wrong.toml").write_text('amount = 0.5\ncriterion = "magnitud"\n')
    code, _, err = run(capsys, "quick.toml", "wrong.toml", *(part for item in FINE.items() for part in item))
    assert code == 2
    assert err.startswith("laconic: wrong.toml: criterion: expected one of magnitude, ")
    assert err.endswith("found 'magnitud'; did you mean 'magnitude'?\n")
    assert not (here / "runs").exists()


def test_all_axes_are_listed(here, capsys):
    code, out, _ = run(capsys, "--axes")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for name in ("least-squares", "variational-dropout", "momentum = 0.0"):
        assert name in " ".join(out.split())


def test_help_shows_a_recipe(here, capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "amount = 0.9" in out
    assert "goes on" in " ".join(out.split())
