import json
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

import laconic
from laconic.cli import main
from laconic.errors import CheckpointError, MismatchError
from laconic.file.contents import export
from laconic.file.workers import FileOptions
from laconic.formats import Checkpoint, open_checkpoint
from tests.support.states import same_bits, tensor_of


def state(n=6):
    kinds = ("weights", "rows", "noise", "sparse")
    types = (torch.bfloat16, torch.float32, torch.int64)
    return {f"layers.{i}.weight": tensor_of(types[i % 3], (60 + i, 70), kinds[i % 4], seed=i) for i in range(n)}


@pytest.fixture
def sharded(tmp_path):
    """A folder as Hugging Face has them."""
    folder = tmp_path / "model"
    folder.mkdir()
    tensors = state()
    shards = {
        "model-00001-of-00002.safetensors": list(tensors)[:4],
        "model-00002-of-00002.safetensors": list(tensors)[4:],
    }
    for shard, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / shard)
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


def equal(a, b):
    return a.keys() == b.keys() and all(same_bits(a[name], tensor) for name, tensor in b.items())


@pytest.mark.parametrize("quantizer", [laconic.quantization.Codebook(16), laconic.quantization.FixedBits(4)])
def test_a_folder_is_rounded_as_its_tensors_are(sharded, tmp_path, quantizer):
    laconic.save(open_checkpoint(sharded), tmp_path / "a.lac", quantizer, work=FileOptions(threads=2, resume="it"))
    laconic.save(state(), tmp_path / "b.lac", quantizer)
    decoded, expected = laconic.load(tmp_path / "a.lac"), laconic.load(tmp_path / "b.lac")
    assert equal(decoded, expected)
    assert not equal(decoded, state())


def test_a_folder_is_read_tensor_by_tensor(sharded):
    found = open_checkpoint(sharded)
    assert isinstance(found, Checkpoint)
    assert equal(found, state())
    assert {n: (t.shape, t.dtype) for n, t in found.specs.items()} == {
        n: (t.shape, t.dtype) for n, t in state().items()
    }
    assert equal(open_checkpoint(sharded / "model.safetensors.index.json"), state())


def test_a_folder_goes_there_and_back_exactly_in_shards(sharded, tmp_path, capsys):
    packed, back = tmp_path / "m.lac", tmp_path / "back.safetensors"
    code, out, _ = run(capsys, "compress", sharded, "-o", packed, "--lossless")
    assert (code, "exactly" in out) == (0, True)
    assert not (tmp_path / "m.lac.part").exists()
    assert run(capsys, "decompress", packed, "-o", back)[0] == 0
    assert equal(load_file(back), state())
    assert run(capsys, "decompress", packed, "-o", tmp_path / "cut.safetensors", "--shard-bytes", 60_000)[0] == 0
    index = tmp_path / "cut.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values())
    assert len(shards) > 2
    assert all((tmp_path / shard).stat().st_size < 61_000 + 1000 for shard in shards)
    assert equal(open_checkpoint(index), state())
    assert not (tmp_path / "cut.safetensors").exists()


def test_files_are_the_same_whatever_the_threads(tmp_path):
    files = set()
    for threads in (1, 2, 5):
        laconic.save(state(20), tmp_path / "m.lac", None, work=FileOptions(threads))
        files.add((tmp_path / "m.lac").read_bytes())
    assert len(files) == 1
    assert equal(laconic.load(tmp_path / "m.lac", work=FileOptions(3)), state(20))


def test_exported_files_are_those_of_safetensors(tmp_path):
    """Whole tensors at multiples of their length, in the library's own order."""
    save_file(state(), tmp_path / "theirs", {"format": "pt"})
    laconic.save(state(), tmp_path / "m.lac", None)
    with laconic.file.Reader(tmp_path / "m.lac") as reader:
        export(reader, tmp_path / "ours", list(reader.entries))
    assert list(load_file(tmp_path / "ours")) == list(load_file(tmp_path / "theirs"))
    assert equal(load_file(tmp_path / "ours"), load_file(tmp_path / "theirs"))


def test_only_what_is_asked_for_is_decoded(sharded, tmp_path, capsys):
    packed, back = tmp_path / "m.lac", tmp_path / "back.safetensors"
    run(capsys, "compress", sharded, "-o", packed, "--lossless")
    whole = bytearray(packed.read_bytes())
    with laconic.file.Reader(packed) as reader:
        whole[list(reader.entries.values())[-1].offset] ^= 1
    packed.write_bytes(whole)
    only = ["--only", r"re:layers\.[12]\.", "--only", "layers.4"]
    assert run(capsys, "decompress", packed, "-o", back, *only)[0] == 0
    assert set(load_file(back)) == {"layers.1.weight", "layers.2.weight", "layers.4.weight"}
    assert run(capsys, "decompress", packed, "-o", tmp_path / "x")[0] == 1
    code, _, err = run(capsys, "decompress", packed, "-o", tmp_path / "x", "--only", "layers.9")
    assert (code, "'layers.9'" in err) == (2, True)


def test_differences_on_the_command_line(tmp_path, capsys):
    parent = {"w": torch.randn(80, 90), "b": torch.randn(80)}
    child = {name: t + 1e-3 * torch.randn(t.shape) for name, t in parent.items()}
    save_file(parent, tmp_path / "p.safetensors")
    save_file(child, tmp_path / "c.safetensors")
    packed, back = tmp_path / "c.lac", tmp_path / "back.safetensors"
    base = ["--base", tmp_path / "p.safetensors"]
    assert run(capsys, "compress", tmp_path / "c.safetensors", "-o", packed, "--lossless", *base)[0] == 0
    assert run(capsys, "decompress", packed, "-o", back, *base)[0] == 0
    assert equal(load_file(back), child)
    code, _, err = run(capsys, "decompress", packed, "-o", tmp_path / "x")
    assert (code, "expected the parent" in err) == (2, True)
    assert "changes" in run(capsys, "inspect", packed)[1]
    code, out, _ = run(capsys, "compress", tmp_path / "c.safetensors", "-o", packed, "--force", *base)
    assert (code, "‖w − ŵ‖ ≤ 0.025 ‖w‖" in out) == (0, True)


class Interrupted(dict):
    """A state whose tensors can be read so many times, then the user has enough."""

    def __init__(self, tensors, left):
        super().__init__(tensors)
        self.left = left

    def __getitem__(self, name):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().__getitem__(name)


@pytest.fixture
def interrupted(tmp_path):
    """What a save that was interrupted left: a draft, and its journal; each with its bytes."""

    def left(tensors, n_read):
        with pytest.raises(KeyboardInterrupt):
            laconic.save(Interrupted(tensors, n_read), tmp_path / "m.lac", None, work=FileOptions(1, resume="input"))
        return {path: path.read_bytes() for path in (tmp_path / "m.lac.part", tmp_path / "m.lac.part.journal")}

    return left


def test_an_interrupted_file_goes_on(interrupted, tmp_path):
    whole, path = tmp_path / "whole.lac", tmp_path / "m.lac"
    laconic.save(state(), whole, None)
    part, journal = kept = interrupted(state(), 4)
    for damaged, cut in ((part, 0), (part, 1), (part, 700), (journal, 1)):  # kill -9 may leave half a record
        for file, data in kept.items():
            file.write_bytes(data[: len(data) - cut * (file == damaged)])
        again = Interrupted(state(), 2 + (cut > 0))
        laconic.save(again, path, None, work=FileOptions(1, resume="input"))
        assert again.left == 0, "only what was not finished is read again"
        assert path.read_bytes() == whole.read_bytes()
        assert not part.exists() and not journal.exists()


def test_small_tensors_go_on_as_well(interrupted, tmp_path):
    """Their chunks are in the record's line."""
    tensors = {f"t{i}": tensor_of(torch.float32, (5 + 7 * i,), "noise", seed=i) for i in range(4)}
    whole, path = tmp_path / "whole.lac", tmp_path / "m.lac"
    laconic.save(tensors, whole, None)
    _, journal = kept = interrupted(tensors, 3)
    for cut in (0, 1):
        for file, data in kept.items():
            file.write_bytes(data[: len(data) - cut * (file == journal)])
        again = Interrupted(tensors, 1 + cut)
        laconic.save(again, path, None, work=FileOptions(1, resume="input"))
        assert again.left == 0
        assert path.read_bytes() == whole.read_bytes()


def test_damaged_records_are_coded_again(interrupted, tmp_path):
    path = tmp_path / "m.lac"
    part, journal = kept = interrupted(state(), 4)
    for damaged, begin, step in ((part, 0, 997), (journal, 40, 7)):
        for at in range(begin, len(kept[damaged]), step):
            for file, data in kept.items():
                file.write_bytes(data)
            changed = bytearray(kept[damaged])
            changed[at] ^= 64
            damaged.write_bytes(changed)
            laconic.save(state(), path, None, work=FileOptions(1, resume="input"))
            assert equal(laconic.load(path), state())


@pytest.mark.parametrize("left", [0, 1])
def test_half_of_what_was_left(left, interrupted, tmp_path):
    """A draft without its journal may be anyone's; a journal without its draft is what a crash leaves."""
    files = list(interrupted(state(), 4))
    files[1 - left].unlink()
    save = partial(laconic.save, state(), tmp_path / "m.lac", None, work=FileOptions(1, resume="input"))
    if left == 0:
        with pytest.raises(MismatchError, match="remove it to start anew"):
            save()
    else:
        save()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["m.lac"]


def test_other_options_or_input_do_not_go_on(tmp_path):
    path = tmp_path / "m.lac"
    with pytest.raises(KeyboardInterrupt):
        laconic.save(Interrupted(state(), 4), path, None, work=FileOptions(1, resume="input"))
    for quantizer, resume in ((laconic.quantization.Grid(), "input"), (None, "another")):
        with pytest.raises(MismatchError, match=r"m\.lac\.part: .* remove it to start anew"):
            laconic.save(state(), path, quantizer, work=FileOptions(1, resume=resume))
    assert not path.exists()


def test_a_refused_save_leaves_no_part(tmp_path):
    with pytest.raises(laconic.errors.NonFiniteError):
        laconic.save({"w": torch.full((9, 9), torch.nan)}, tmp_path / "m.lac", work=FileOptions(1, resume="input"))
    assert list(tmp_path.iterdir()) == []


KILLED = """
import itertools, os, signal
from laconic.cli.main import main
from laconic.file import save_load

count, encode = itertools.count(), save_load.encode_tensor

def encode_or_die(*arguments):
    if next(count) == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*arguments)

save_load.encode_tensor = encode_or_die
main()
"""


def test_a_killed_command_goes_on(tmp_path, capsys):
    source, packed, part = tmp_path / "m.safetensors", tmp_path / "m.lac", tmp_path / "m.lac.part"
    tensors = {f"t{i:03}": tensor_of(torch.float32, (200, 300), "weights", i) for i in range(60)}
    save_file(tensors, source)
    command = [sys.executable, "-c", KILLED, "compress", source, "-o", packed, "--lossless"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert part.stat().st_size > 1_000_000
    assert not packed.exists()
    code, _, err = run(capsys, "compress", source, "-o", packed, "--lossless")
    assert (code, "going on from" in err) == (0, True)
    assert not part.exists()
    assert equal(laconic.load(packed), tensors)


DAMAGED = {
    "no weight_map": ("{}", "a weight_map"),
    "no JSON": ("{", "a weight_map"),
    "another folder": ('{"weight_map": {"w": "../w.safetensors"}}', "files of this folder"),
    "a tensor too many": ('{"weight_map": {"w": "model-00001-of-00002.safetensors"}}', "a tensor 'w'"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_indices_are_refused(sharded, name):
    text, message = DAMAGED[name]
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(sharded)


def test_missing_shards_and_empty_folders_are_named(sharded, tmp_path, capsys):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    code, _, err = run(capsys, "compress", sharded, "-o", tmp_path / "x.lac")
    assert (code, "model-00002-of-00002.safetensors: No such file" in err) == (2, True)
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, "compress", tmp_path / "empty", "-o", tmp_path / "x.lac")
    assert (code, "a folder of safetensors or PyTorch files" in err) == (2, True)
