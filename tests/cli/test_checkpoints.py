import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import laconic
from tests.cli.test_main import run

SD = {"0.weight": torch.randn(30, 40), "0.bias": torch.randn(30)}
EMA = {name: tensor + 1e-4 * torch.randn(tensor.shape) for name, tensor in SD.items()}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optimizer = torch.optim.Adam([nn.Parameter(tensor) for tensor in SD.values()])
    state = {
        "state": {i: {"exp_avg": torch.ones(2)} for i in range(2)},
        "param_groups": optimizer.param_groups[0]["betas"],
    }
    torch.save({"model": SD, "optimizer": state, "epoch": 3}, "trained.pt")
    torch.save({"model": SD, "ema": EMA, "optimizer": state}, "average.pt")
    save_file(SD, "net.safetensors")
    return tmp_path


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], tensor) for name, tensor in b.items())


def test_what_is_left_out_of_a_lossless_file_is_told(capsys):
    code, out, err = run(capsys, "compress", "trained.pt", "-o", "t.lac", "--lossless")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == ["left out: optimizer (2 tensors), epoch; --key chooses another part"]
    assert equal(laconic.load("t.lac"), SD)


def test_nothing_is_told_when_nothing_is_left_out(capsys):
    _, out, _ = run(capsys, "compress", "net.safetensors", "-o", "t.lac", "--lossless")
    assert out.count("\n") == 1
    torch.save({**SD, "step": 3}, "s.pt")
    _, out, _ = run(capsys, "compress", "s.pt", "-o", "s.lac")
    assert out.splitlines()[1:] == ["left out: step"]


def test_a_key_chooses_among_parts(capsys):
    code, out, err = run(capsys, "compress", "average.pt", "-o", "t.lac")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "average.pt: expected one part" in err
    assert "several: model (2 tensors), ema (2 tensors); choose one by its key (--key)" in err
    code, out, _ = run(capsys, "compress", "average.pt", "-o", "t.lac", "--lossless", "--key", "ema")
    assert "left out: model (2 tensors), optimizer (2 tensors); --key" in out
    assert equal(laconic.load("t.lac"), EMA)
    code, _, err = run(capsys, "compress", "average.pt", "-o", "t.lac", "--force", "--key", "em")
    assert (code, "did you mean 'ema'" in err) == (2, True)
    code, _, err = run(capsys, "compress", "net.safetensors", "-o", "t.lac", "--force", "--key", "ema")
    assert (code, "net.safetensors: expected a PyTorch file" in err) == (2, True)
    assert equal(laconic.load("t.lac"), EMA)


def test_a_key_chooses_the_parents_part(capsys):
    torch.save(EMA, "ema.pt")
    base = ["--base", "average.pt", "--base-key", "model"]
    code, out, _ = run(capsys, "compress", "ema.pt", "-o", "t.lac", "--lossless", *base)
    assert (code, "coded by their difference from the parent: 2 of 2 tensors" in out) == (0, True)
    assert run(capsys, "decompress", "t.lac", "-o", "b.safetensors", *base)[0] == 0
    assert equal(load_file("b.safetensors"), EMA)
    code, _, err = run(capsys, "decompress", "t.lac", "-o", "b.safetensors", "--force", "--base", "average.pt")
    assert (code, "choose one by its key" in err) == (2, True)


def test_an_interrupted_file_of_one_part_is_not_continued_with_another(capsys, monkeypatch):
    def interrupted(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", interrupted)
        run(capsys, "compress", "average.pt", "-o", "t.lac", "--lossless", "--key", "ema")
    code, _, err = run(capsys, "compress", "average.pt", "-o", "t.lac", "--lossless", "--key", "model")
    assert (code, "t.lac.part: expected what the same input" in err) == (2, True)
    code, _, err = run(capsys, "compress", "average.pt", "-o", "t.lac", "--lossless", "--key", "ema")
    assert (code, err) == (0, "going on from t.lac.part\n")


MISFITS = {
    "prefix": (
        {"model." + name: tensor for name, tensor in SD.items()},
        "names such as 'model.0.bias', where '0.bias'",
    ),
    "type": (
        {name: tensor.bfloat16() for name, tensor in SD.items()},
        "0.bias of torch.bfloat16 (30,), where torch.float32 (30,)",
    ),
    "shape": (
        {"0.weight": SD["0.weight"].T.contiguous()},
        "0.weight of torch.float32 (40, 30), where torch.float32 (30, 40)",
    ),
}


@pytest.mark.parametrize("form", ["safetensors", "pt", "lac"])
@pytest.mark.parametrize("case", MISFITS)
def test_a_parent_that_shares_no_tensor_is_refused(capsys, case, form):
    tensors, found = MISFITS[case]
    write = {"safetensors": save_file, "pt": torch.save, "lac": lambda state, path: laconic.save(state, path, None)}
    write[form](tensors, f"parent.{form}")
    code, out, err = run(capsys, "compress", "net.safetensors", "-o", "t.lac", "--lossless", "--base", f"parent.{form}")
    assert (code, out) == (2, "")
    assert f"base parent.{form}: expected a tensor of the same name, shape and type, found " in err and found in err
    assert not os.path.lexists("t.lac")
    with pytest.raises(laconic.errors.MismatchError, match="base: expected a tensor of the same name"):
        laconic.save(SD, "t.lac", None, base=tensors)


def test_a_parent_that_helps_some_or_none_is_told(capsys):
    parent = {"0.weight": EMA["0.weight"], "0.bias": SD["0.bias"].half()}
    save_file(parent, "some.safetensors")
    _, out, _ = run(capsys, "compress", "net.safetensors", "-o", "t.lac", "--lossless", "--base", "some.safetensors")
    assert out.splitlines()[1] == "coded by their difference from the parent: 1 of 2 tensors"
    save_file({name: torch.randn(tensor.shape) for name, tensor in SD.items()}, "none.safetensors")
    _, out, _ = run(capsys, "compress", "net.safetensors", "-o", "u.lac", "--lossless", "--base", "none.safetensors")
    assert out.splitlines()[1] == "coded by their difference from the parent: none of 2 tensors"


def identity(path):
    """What is there, whatever was read of it."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("kind", ["pipe", "link", "dangling"])
@pytest.mark.parametrize(
    ("command", "suffix"), [("compress", ""), ("compress", ".part"), ("compress", ".part.journal"), ("decompress", "")]
)
def test_outputs_that_are_no_files_are_refused(capsys, folder, command, kind, force, suffix):
    laconic.save(SD, "in.lac", None)
    (folder / "target").write_text("old")
    out = folder / f"out{suffix}"
    os.mkfifo(out) if kind == "pipe" else out.symlink_to("target" if kind == "link" else "nowhere")
    before = identity(out)
    source = "net.safetensors" if command == "compress" else "in.lac"
    code, shown, err = run(capsys, command, source, "-o", "out", *force)
    assert (code, shown) == (2, "")
    assert f"out{suffix}: expected a file to write, found a {'pipe' if kind == 'pipe' else 'link to'}" in err
    assert identity(out) == before
    assert (folder / "target").read_text() == "old" and not (folder / "nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["compress", "net.safetensors"], "net.safetensors"),
        (["compress", "net.safetensors"], "hard"),
        (["compress", "trained.pt"], "trained.pt"),
        (["compress", "shards"], "shards/model.safetensors"),
        (["compress", "linked/model.safetensors"], "shards/model.safetensors"),
        (["compress", "trained.pt", "--base", "net.safetensors"], "net.safetensors"),
        (["compress", "trained.pt", "--base", "in.lac"], "in.lac"),
        (["decompress", "in.lac"], "in.lac"),
        (["decompress", "in.lac", "--base", "net.safetensors"], "net.safetensors"),
    ],
)
def test_an_output_that_is_an_input_is_refused_even_by_force(capsys, folder, arguments, output):
    laconic.save(SD, "in.lac", None)
    (folder / "shards").mkdir()
    save_file(SD, "shards/model.safetensors")
    (folder / "linked").symlink_to("shards")
    (folder / "hard").hardlink_to("net.safetensors")
    before = (folder / output).read_bytes()
    code, shown, err = run(capsys, *arguments, "-o", output, "--force")
    assert (code, shown, err.count("\n")) == (2, "", 1)
    assert f"{output}: expected a file to write other than the input" in err
    assert (folder / output).read_bytes() == before


def test_existing_shards_and_links_in_their_places_are_not_replaced(capsys, folder):
    laconic.save(SD, "in.lac", None)
    command = ["decompress", "in.lac", "-o", "cut.safetensors", "--shard-bytes", 500]
    (folder / "cut-00002-of-00002.safetensors").write_text("mine")
    code, _, err = run(capsys, *command)
    assert (code, "cut-00002-of-00002.safetensors exists; add --force" in err) == (2, True)
    (folder / "cut.safetensors.index.json").symlink_to("nowhere")
    code, _, err = run(capsys, *command, "--force")
    assert (code, "index.json: expected a file to write, found a link to nowhere" in err) == (2, True)
    assert (folder / "cut-00002-of-00002.safetensors").read_text() == "mine"
    assert not (folder / "cut-00001-of-00002.safetensors").exists()


def test_what_was_rounded_or_spared_by_its_name_alone_is_told(capsys):
    layers = {f"layers.{i}.{name}": torch.randn(30, 40) for i in range(3) for name in ("rel_pos", "fc.weight", "mask")}
    save_file({**layers, "tril": torch.ones(9, 9), "lora_A": torch.randn(30, 40), "steps": torch.arange(9)}, "l.st")
    _, out, _ = run(capsys, "compress", "l.st", "-o", "t.lac")
    assert out.splitlines()[1:] == [
        "rounded, though not named as weights: layers.*.rel_pos; --exclude keeps them exactly",
        "kept exactly, being named as buffers: layers.*.mask, tril",
    ]
    for options in (
        ["--exclude", "re:.*rel_pos", "--exclude", "re:.*mask|tril"],
        ["--include", "tril"],
        ["--lossless"],
    ):
        _, out, _ = run(capsys, "compress", "l.st", "-o", "t.lac", "--force", *options)
        assert "rounded" not in out


def test_a_pattern_that_is_none_is_told_in_one_line(capsys):
    laconic.save(SD, "in.lac", None)
    for command in (["compress", "net.safetensors", "--exclude", "re:("], ["decompress", "in.lac", "--only", "re:("]):
        code, out, err = run(capsys, *command, "-o", "x")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "expected a pattern, found 're:('" in err


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.ones(3, 3, device="meta"), "w: expected a tensor with values, found one on the meta device"),
        (torch.eye(3).to_sparse(), "w: a file holds no tensor of torch.float32, torch.sparse_coo"),
        (torch.ones(3, 3, dtype=torch.complex64), "w: a file holds no tensor of torch.complex64"),
    ],
)
def test_a_tensor_that_no_file_holds_is_named(capsys, folder, tensor, found):
    torch.save({"w": tensor}, "odd.pt")
    code, _, err = run(capsys, "compress", "odd.pt", "-o", "odd.lac")
    assert (code, err.count("\n"), found in err) == (1, 1, True)
    assert not (folder / "odd.lac").exists()


def test_names_that_no_file_holds_are_named_before_anything_is_written(capsys, folder):
    for name, found in (("", "'': name of 0 bytes"), ("n" * 3000, "nnn…': name of 3000 bytes"), ("\ud800", "UTF-8")):
        torch.save({"a": torch.ones(2), name: torch.ones(2)}, "odd.pt")
        code, _, err = run(capsys, "compress", "odd.pt", "-o", "odd.lac")
        assert (code, found in err) == (1, True)
        assert not list(folder.glob("odd.lac*"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", ["inspect", "decompress", "compress", "base"])
def test_a_pipe_as_input_is_refused_without_waiting(capsys, command):
    os.mkfifo("pipe")
    arguments = {
        "inspect": ["inspect", "pipe"],
        "decompress": ["decompress", "pipe", "-o", "x"],
        "compress": ["compress", "pipe", "-o", "x"],
        "base": ["compress", "net.safetensors", "-o", "x", "--base", "pipe"],
    }
    code, _, err = run(capsys, *arguments[command])
    assert code in (1, 2)
    assert "pipe: expected" in err
