import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from laconic.errors import CheckpointError
from laconic.formats import read_checkpoint

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
