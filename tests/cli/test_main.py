import json
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import laconic
from laconic.cli import main, options


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


@pytest.fixture
def checkpoint(tmp_path):
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 10))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pt")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_checkpoint_goes_there_and_back(checkpoint, capsys, name):
    packed, unpacked = checkpoint / "m.lac", checkpoint / "back.safetensors"
    code, out, _ = run(capsys, "compress", checkpoint / name, "-o", packed, "--relative-error", "0.05")
    assert code == 0
    assert f"{packed.stat().st_size:,} bytes" in out
    code, out, _ = run(capsys, "decompress", packed, "-o", unpacked)
    assert (code, "4 tensors" in out) == (0, True)
    exact, back = load_file(checkpoint / "model.safetensors"), load_file(unpacked)
    assert list(exact) == list(back)
    for tensor, decoded in zip(exact.values(), back.values(), strict=True):
        assert (decoded - tensor).norm() <= 0.05 * tensor.norm()
    assert not torch.equal(exact["0.weight"], back["0.weight"])


def test_the_default_error_is_that_of_files_saved_in_python():
    assert laconic.quantization.Grid().relative_error == main.RELATIVE_ERROR


def test_squared_errors_are_of_all_layers_together(checkpoint, capsys):
    packed, arguments = checkpoint / "m.lac", ["--rounding", "squared-error", "--relative-error", "0.1"]
    code, out, _ = run(capsys, "compress", checkpoint / "model.pt", "-o", packed, *arguments)
    assert (code, "a price of" in out) == (0, True)
    exact, decoded = load_file(checkpoint / "model.safetensors"), laconic.load(packed)
    errors = {name: float((decoded[name] - tensor).square().sum()) for name, tensor in exact.items()}
    energy = sum(float(tensor.square().sum()) for tensor in exact.values())
    assert sum(errors.values()) == pytest.approx(0.01 * energy, rel=0.3)
    assert errors["0.weight"] / exact["0.weight"].numel() == pytest.approx(
        errors["1.weight"] / exact["1.weight"].numel(), rel=0.5
    )


def test_include_and_exclude(checkpoint, capsys):
    packed = checkpoint / "m.lac"
    run(capsys, "compress", checkpoint / "model.pt", "-o", packed, "--exclude", r"re:1\.")
    methods = {t["name"]: t["method"] for t in json.loads(run(capsys, "inspect", packed, "--json")[1])["tensors"]}
    assert methods == {"0.weight": "grid", "0.bias": "grid", "1.weight": "planes", "1.bias": "exact"}


def test_inspection_adds_up(checkpoint, capsys):
    packed = checkpoint / "m.lac"
    run(capsys, "compress", checkpoint / "model.pt", "-o", packed, "--relative-error", "0.1")
    found = json.loads(run(capsys, "inspect", packed, "--json")[1])
    assert found["bytes"] == packed.stat().st_size
    assert found["weights"] == 40 * 30 + 30 + 300 + 10
    with laconic.file.Reader(packed) as reader:
        assert found["bytes"] == sum(t["bytes"] for t in found["tensors"]) + reader.n_header_bytes
    code, out, _ = run(capsys, "inspect", packed)
    assert code == 0
    assert "0.weight" in out
    assert "30×40" in out
    assert [t["model"] for t in found["tensors"]] == ["adaptive"] * 4
    assert "F32" in out and "integers" in out and "adaptive" not in out
    assert "float32  grid, adaptive" in run(capsys, "inspect", packed, "--long")[1]


def test_inspection_says_which_model_codes_a_tensor_in_eighty_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    line = torch.randn(400, 1)
    deep = "model.layers.10.self_attention.output_projection.weight"
    tensors = {deep: 8 * line + torch.randn(400, 6), "tied": line, "tied.again": line, "e": torch.zeros(0)}
    laconic.save(tensors | {"i": torch.arange(3)}, tmp_path / "t.lac")
    found = json.loads(run(capsys, "inspect", tmp_path / "t.lac", "--json")[1])["tensors"]
    assert {t["name"]: t["model"] for t in found} == {
        deep: "predicted, adaptive",
        "tied": "adaptive",
        "tied.again": None,
        "e": None,
        "i": None,
    }
    out = run(capsys, "inspect", tmp_path / "t.lac")[1]
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"I64 +all bits", out)
    assert "= tied " in out


def test_a_network_goes_to_a_target(tmp_path, capsys):
    out = tmp_path / "net.lac"
    command = ["compress", BLOBS_NET, "-o", out, "--data", BLOBS, "--max-bytes", "700", "--epochs", "1"]
    code, shown, _ = run(capsys, *command)
    assert code == 0 and out.stat().st_size <= 700
    assert "meets the target: at most 700 bytes" in shown
    assert "rounded, price" in shown and "trained, price" in shown
    assert re.search(rf"→ .* {out.stat().st_size} ", shown)
    *table, load = shown.splitlines()
    assert max(map(len, table)) <= 80
    line = load.removeprefix("Load it: ")
    code = f"import laconic; {line.replace('; laconic', '; net = laconic')}; print(sum(p.numel() for p in net.parameters()))"
    assert int(subprocess.check_output([sys.executable, "-c", code])) > 0


TARGETS = {
    "met": (["--max-bytes", "0.7kB"], 0),
    "a share of the score": (["--max-drop", "2%"], 0),
    "fewer bytes than zeros take": (["--max-bytes", "20"], 3),
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_missed_target_exits_with_3_and_says_what_can_be_met(case, tmp_path, capsys):
    arguments, expected = TARGETS[case]
    out = tmp_path / "net.lac"
    code, shown, err = run(capsys, "compress", BLOBS_NET, "-o", out, "--data", BLOBS, *arguments)
    assert code == expected
    n_attempts = len(re.findall(r"bytes, score", shown))
    if expected:
        n = out.stat().st_size
        assert n_attempts == 2  # no price can do better than zeros
        assert f"misses the target by {n - 20}: at most 20 bytes" in shown
        assert f"misses the target, at most 20 bytes: the nearest file has {n} bytes" in err and err.count("\n") == 1
        again = ["compress", BLOBS_NET, "-o", out, "--force", "--data", BLOBS, "--max-bytes", str(n)]
        assert run(capsys, *again)[0] == 0
    else:
        assert n_attempts > 2 and "meets the target" in shown and not err


@pytest.mark.parametrize("command", ["", "demo", "prune", "compress", "decompress", "inspect"])
def test_help_fits_eighty_columns_and_its_examples_can_be_copied(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, shown, _ = run(capsys, *filter(None, [command]), "--help")
    assert code == 0 and max(map(len, shown.splitlines())) <= 80
    assert (
        "list[" not in shown.partition("Options")[2] and shown.count("<bool>") <= (command == "") + 1
    )  # --help's own, and the root's
    text = getattr(main, command).__doc__ if command else ""
    for example in re.findall(r"^ {8}(\S.*)$", text, re.MULTILINE):
        assert example in shown


@pytest.mark.parametrize("text", ["1", "1_000", "1,000", "2kB", "2KB", "2 kiB", "1.5MiB", "3gb"])
def test_bytes_in_words(text):
    values = {"1": 1, "1_000": 1000, "1,000": 1000, "2kB": 2000, "2KB": 2000, "2 kiB": 2048}
    assert options.n_bytes(text) == (values | {"1.5MiB": 3 << 19, "3gb": 3 * 10**9})[text]


def test_tied_tensors_decompress(tmp_path, capsys):
    weight = torch.randn(30, 8)
    torch.save({"a": weight, "b": weight}, tmp_path / "tied.pt")
    assert run(capsys, "compress", tmp_path / "tied.pt", "-o", tmp_path / "t.lac")[0] == 0
    assert run(capsys, "decompress", tmp_path / "t.lac", "-o", tmp_path / "t.safetensors")[0] == 0
    assert "= a" in run(capsys, "inspect", tmp_path / "t.lac")[1]


BLOBS, BLOBS_NET = "laconic.datasets:blobs", "laconic.zoo:blobs_net"
WRONG = {
    "no output": (["compress", "model.pt"], "--output"),
    "no such file": (["compress", "nothing.pt", "-o", "x.lac"], "nothing.pt: No such file"),
    "no such folder": (["compress", "model.pt", "-o", "no/x.lac"], "a folder that exists"),
    "existing output": (["compress", "model.pt", "-o", "model.pt"], "add --force"),
    "error out of range": (["compress", "model.pt", "-o", "x.lac", "--relative-error", "2"], "within (0, 1)"),
    "not a number": (["compress", "model.pt", "-o", "x.lac", "--relative-error", "a"], "relative-error"),
    "selector without match": (["compress", "model.pt", "-o", "x.lac", "--exclude", "fc9"], "'fc9'"),
    "data without a target": (["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS], "found none"),
    "two targets": (
        ["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--shortest", "--max-drop", "0.1"],
        "found --max-drop and --shortest",
    ),
    "options of checkpoints": (
        ["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--shortest", "--lossless"],
        "--lossless: expected without --data",
    ),
    "an error with data": (
        ["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--shortest", "--relative-error", "0.1"],
        "--relative-error: expected without --data",
    ),
    "rounding exactly": (
        ["compress", "model.pt", "-o", "x.lac", "--lossless", "--rounding", "squared-error"],
        "--rounding: expected without --lossless",
    ),
    "rounding with data": (
        ["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--shortest", "--rounding", "grid"],
        "--rounding: expected without --data",
    ),
    "threads with data": (
        ["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--shortest", "--threads", "2"],
        "--threads: expected without --data",
    ),
    "a key with data": (
        ["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--shortest", "--key", "ema"],
        "--key: expected without --data",
    ),
    "a key of the parent without a parent": (
        ["compress", "model.pt", "-o", "x.lac", "--base-key", "ema"],
        "--base-key: expected with --base",
    ),
    "a target without data": (["compress", "model.pt", "-o", "x.lac", "--max-bytes", "9"], "with --data"),
    "no such network": (["compress", "laconic.zoo:net", "-o", "x.lac", "--data", BLOBS, "--shortest"], "'net'"),
    "not a checkpoint": (["compress", "text", "-o", "x.lac"], "expected a safetensors file or a PyTorch"),
    "unknown command": (["squeeze"], "found 'squeeze'; there are demo, prune, compress, decompress, inspect"),
    "no command": (["help"], "found 'help'; there are"),
    "a share in letters": (
        ["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--max-drop", "little"],
        "0.01 or 1%",
    ),
    "bytes in letters": (["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--max-bytes", "few"], "200kB or"),
    "no bytes": (["compress", BLOBS_NET, "-o", "x.lac", "--data", BLOBS, "--max-bytes", "0kB"], "1 byte or more"),
    "unknown data": (["demo", "--data", "imagenet"], "'digits', 'mnist', 'blobs'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line_and_2(checkpoint, capsys, monkeypatch, case):
    monkeypatch.chdir(checkpoint)
    (checkpoint / "text").write_text("hello, world")
    arguments, message = WRONG[case]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (checkpoint / "x.lac").exists()


@pytest.mark.parametrize("command", ["inspect", "decompress"])
def test_damaged_input_is_one_line_and_1(checkpoint, capsys, monkeypatch, command):
    monkeypatch.chdir(checkpoint)
    run(capsys, "compress", "model.pt", "-o", "m.lac")
    whole = (checkpoint / "m.lac").read_bytes()
    more = ["-o", "x.safetensors"] if command == "decompress" else []
    for damaged in (b"", whole[:50], whole[:-1], whole + b"\0", b"GIF89a" + whole, whole[:-9] + bytes(9)):
        (checkpoint / "d.lac").write_bytes(damaged)
        code, out, err = run(capsys, command, "d.lac", *more)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert not (checkpoint / "x.safetensors").exists()


def test_ctrl_c_is_one_line_and_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("laconic.cli.demo.run", interrupted)
    code, _, err = run(capsys, "demo")
    assert code == 130
    assert "what was finished is kept" in err


def test_pickled_objects_are_not_run(tmp_path, capsys):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    code, _, err = run(capsys, "compress", tmp_path / "whole.pt", "-o", tmp_path / "x.lac")
    assert code == 2
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], ["compress", "--help"], ["prune", "--help"]])
def test_help_is_instant(arguments):
    code = (
        "import sys; from laconic.cli import main as cli\n"
        f"try: cli.main({arguments})\n"
        "except SystemExit as done: code = done.code\n"
        "heavy = {'torch', 'numba', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip()


def test_the_demo_tells_its_story(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "demo", "--data", "blobs", "-o", tmp_path / "demo")
    assert code == 0
    rows = [line for line in out.splitlines() if "pruned │" in line or "dense  " in line]
    assert len(rows) == 7
    assert max(map(len, out.splitlines()[:12])) <= 80
    last = rows[-1].replace(",", "").replace("←", "").split("│")
    file_bytes, model_bits, data_bits, total = (int(float(cell)) for cell in last[4:8])
    assert file_bytes == (tmp_path / "demo" / "95-percent-pruned.lac").stat().st_size
    assert model_bits == 8 * file_bytes
    assert abs(model_bits + data_bits - total) <= 1
    report = tmp_path / "demo" / "report.html"
    assert str(report) in out
    assert "http:" not in report.read_text() and "https:" not in report.read_text()


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "cp932", "koi8-r", "ascii"])
def test_a_console_that_lacks_characters_stops_nothing(encoding, tmp_path):
    torch.save({"a.[/x]weight": torch.randn(8, 8)}, tmp_path / "c.pt")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for arguments in (
        ["compress", "c.pt", "-o", "n.lac"],
        ["inspect", "n.lac"],
        ["compress", "--help"],
        ["prune", "--axes"],
    ):
        command = [sys.executable, "-m", "laconic.cli.main", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert b"Error" not in done.stderr
        if arguments[0] == "inspect":
            assert b"a.[/x]weight" in done.stdout


FUNCTIONS = """
import torch

def broken():
    raise KeyError("train.csv")

def nothing():
    return None

network = torch.nn.Linear(3, 2)

def make():
    return torch.nn.Linear(3, 2)

def keywords():
    return [{"y": torch.randn(4, 3), "labels": torch.tensor([0, 1, 0, 1])}]
"""
USERS = {
    "an error": (("make", "broken"), "--data: users:broken raised KeyError: 'train.csv', at"),
    "nothing": (("make", "nothing"), "--data: expected an iterable of batches, found None"),
    "a network": (("network", "broken"), "expected a function, found users:network to be a Linear"),
    "keywords": (("make", "keywords"), "batch: expected keywords of the model's forward, found y"),
}


@pytest.mark.parametrize("kind", USERS)
def test_what_users_functions_do_wrong_is_one_line(kind, tmp_path, monkeypatch, capsys):
    (tmp_path / "users.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users", raising=False)
    (make, data), message = USERS[kind]
    code, _, error = run(
        capsys, "compress", f"users:{make}", "--data", f"users:{data}", "-o", "n.lac", "--max-drop", "0.1"
    )
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
