import argparse
import collections
import json
import pathlib
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from laconic.errors import CheckpointError
from laconic.formats import open_checkpoint, read_checkpoint

STATE = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.zeros(2)}
WRAPPED = {f"module.{name}": tensor for name, tensor in STATE.items()}


def check(path):
    found = read_checkpoint(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("content", [STATE, WRAPPED, {"epoch": 3, "state_dict": WRAPPED}, {"model": STATE, "args": {}}])
def test_pytorch_files_of_either_kind(tmp_path, content, zipped):
    path = tmp_path / "weights.safetensors"  # the name is not what tells
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    check(path)


def test_safetensors_files(tmp_path):
    save_file(WRAPPED, tmp_path / "weights.pt")
    check(tmp_path / "weights.pt")


def test_parameters_come_as_plain_tensors_and_stay_tied(tmp_path):
    weight = nn.Parameter(torch.ones(2))
    torch.save({"a": weight, "b": weight}, tmp_path / "tied.pt")
    found = read_checkpoint(tmp_path / "tied.pt")
    assert not found["a"].requires_grad
    assert found["a"].data_ptr() == found["b"].data_ptr()


def test_only_a_common_prefix_is_dropped(tmp_path):
    torch.save({"module.a": STATE["fc.bias"], "b": STATE["fc.bias"]}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").keys() == {"module.a", "b"}


class Malicious:
    def __reduce__(self):
        return (eval, ("1/0",))


def _saved(content, path, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (lambda p: b"", "found an empty file"),
        (lambda p: b"hello, world", "found a file that begins with b'hello, wo'"),
        (lambda p: (3).to_bytes(8, "little") + b"{]}", "found a damaged one"),
        (lambda p: _saved(STATE, p)[:-40], "found a damaged one"),
        (lambda p: _saved(STATE, p, zipped=False)[:-40], "found a damaged one"),
        (lambda p: pickle.dumps({"w": [1.0]}, protocol=2), "found"),
        (lambda p: pickle.dumps(Malicious(), protocol=2), "found a"),
        (lambda p: _saved({"w": Malicious()}, p), "found a pickled .*eval"),
        (lambda p: _saved(nn.Linear(2, 2), p), r"found a pickled torch\.nn.*Linear.*state_dict"),
        (lambda p: _saved(torch.ones(2), p), "expected named tensors.*found a Tensor"),
        (lambda p: _saved({}, p), "found a dict of nothing"),
        (lambda p: _saved({"epoch": 3, "model": {}}, p), "found a dict of 'epoch', 'model'"),
    ],
)
def test_anything_else_is_refused_in_one_line(tmp_path, make, finding):
    path = tmp_path / "bad.pt"
    path.write_bytes(make(path))
    with pytest.raises(CheckpointError, match=finding) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: expected")
    assert "\n" not in str(caught.value)


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pt")


def index_of(folder, name, shards):
    weight_map = {name: shard for shard, tensors in shards.items() for name in tensors}
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def halves(folder):
    """STATE in two files, as transformers wrote them before safetensors."""
    shards = {f"pytorch_model-0000{i}-of-00002.bin": {n: STATE[n]} for i, n in enumerate(STATE, 1)}
    for shard, tensors in shards.items():
        torch.save(tensors, folder / shard)
    index_of(folder, "pytorch_model.bin.index.json", shards)
    return shards


def test_an_index_of_pytorch_shards(tmp_path):
    shards = halves(tmp_path)
    torch.save({"lr": 0.1}, tmp_path / "training_args.bin")
    check(tmp_path)
    check(tmp_path / "pytorch_model.bin.index.json")
    opened = open_checkpoint(tmp_path)
    assert opened.left_out == {"training_args.bin": 0}
    assert {file.name for file in opened.files} == {"pytorch_model.bin.index.json", *shards}
    index_of(tmp_path, "pytorch_model.bin.index.json", {**shards, next(iter(shards)): {"fc.weight": 0, "fc.more": 0}})
    with pytest.raises(CheckpointError, match=r"index\.json: expected a tensor 'fc.more' in pytorch_model-00001"):
        open_checkpoint(tmp_path)


def test_a_truncated_shard_is_named(tmp_path):
    shard = tmp_path / next(iter(halves(tmp_path)))
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=f"{shard.name}: expected .* as if cut short"):
        open_checkpoint(tmp_path)


def test_a_folder_with_a_pytorch_file_and_what_trainers_leave_beside_it(tmp_path):
    torch.save({"module": STATE, "step": 2}, tmp_path / "pytorch_model.bin")
    torch.save({"a": 1}, tmp_path / "optimizer.pt")
    assert open_checkpoint(tmp_path).left_out == {"step": 0, "optimizer.pt": 0}
    check(tmp_path)
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"expected one index or file to read, found 2: net\.pth, optimizer\.pt"):
        open_checkpoint(tmp_path)
    (tmp_path / "optimizer.pt").unlink()
    check(tmp_path)


def test_safetensors_are_preferred_and_others_told(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    check(tmp_path)
    assert open_checkpoint(tmp_path).left_out == {"pytorch_model.bin": 0}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            [".metadata", "__0_0.distcp"],
            "one of torch.distributed.checkpoint; convert it by python -m torch.distributed",
        ),
        (["latest", "global_step1/zero_pp_rank_0_mp_rank_00_optim_states.pt"], "one of DeepSpeed's; convert it by"),
        (["saved_model.pb"], "one of TensorFlow's"),
        (["config.json"], "none of either"),
    ],
)
def test_other_folders_are_named(tmp_path, files, found):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x80")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: expected a folder of safetensors or PyTorch files, found {found}")


def test_a_key_is_for_pytorch_files(tmp_path):
    torch.save({"a": STATE, "b": {"w": torch.ones(1)}}, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt", key="a").left_out == {"b": 1}
    assert list(read_checkpoint(tmp_path, key="b")) == ["w"]
    with pytest.raises(CheckpointError, match=r"x\.pt: expected one part .* a \(2 tensors\), b \(1 tensor\)"):
        open_checkpoint(tmp_path / "x.pt")
    (tmp_path / "x.pt").unlink()
    save_file(STATE, tmp_path / "x.safetensors")
    for path in (tmp_path, tmp_path / "x.safetensors"):
        with pytest.raises(CheckpointError, match="whose part 'a' to read"):
            open_checkpoint(path, key="a")


def test_plain_containers_beside_weights_are_left_out(tmp_path):
    others = {"args": argparse.Namespace(lr=0.1, where=pathlib.PosixPath("x")), "log": collections.defaultdict(list)}
    torch.save({"state_dict": STATE, **others}, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").left_out == {"args": 0, "log": 0}


def test_a_counter_of_averages_is_left_out_of_any_file(tmp_path):
    averaged = {**WRAPPED, "n_averaged": torch.tensor(3)}
    save_file(averaged, tmp_path / "a.safetensors")
    torch.save(averaged, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        check(tmp_path / name)
        assert open_checkpoint(tmp_path / name).left_out == {"n_averaged": 1}


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(STATE, path)
    opened = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"x\.safetensors: fc\.weight: expected the tensor that was there"):
        opened["fc.weight"]
