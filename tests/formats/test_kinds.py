import io
import os
import socket
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from laconic.errors import CheckpointError
from laconic.formats import open_checkpoint
from laconic.formats.kinds import Kind, kind_of

STATE = {"0.weight": torch.randn(3, 2)}


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def message(field, content):
    return bytes([field << 3 | 2]) + varint(len(content)) + content


def header_of(n_bytes):
    """A safetensors file of one tensor whose header takes so many bytes."""
    text = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return n_bytes.to_bytes(8, "little") + text.ljust(n_bytes) + bytes(8)


@pytest.mark.parametrize("first", [0x80, 0x50, 0x1F, 0x7B, 0x89, 0x93, 0x08])
def test_the_length_of_a_header_may_begin_like_anything(tmp_path, first):
    """0x80 is a pickle's first byte, 0x50 a zip's, 0x1F gzip's, 0x7B JSON's, 0x89 HDF5's, 0x93 NumPy's, 0x08 ONNX's."""
    path = tmp_path / "net"
    path.write_bytes(header_of(0x100 + first))
    assert path.read_bytes()[0] == first
    assert kind_of(path) is Kind.SAFETENSORS
    assert torch.equal(open_checkpoint(path)["w"], torch.zeros(2))


def test_a_header_as_long_as_a_zips_magic_reads(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(header_of(int.from_bytes(b"PK\3\4", "little")))
    assert path.read_bytes()[:4] == b"PK\3\4"
    assert list(open_checkpoint(path)) == ["w"]


def test_a_zip_archive_inside_of_a_tensor_does_not_count(tmp_path):
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a/data.pkl", b"")
    save_file({"w": torch.frombuffer(bytearray(zipped.getvalue()), dtype=torch.uint8)}, tmp_path / "net")
    assert list(open_checkpoint(tmp_path / "net")) == ["w"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files_of_every_protocol_are_known(tmp_path, protocol, zipped):
    torch.save(STATE, tmp_path / "net", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert kind_of(tmp_path / "net") is Kind.PYTORCH


def saved(write, *arguments):
    out = io.BytesIO()
    write(*arguments, out)
    return out.getvalue()


def zip_of(*names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return out.getvalue()


def tar_of(name):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


FOREIGN = {
    "TorchScript": (lambda: saved(torch.jit.save, torch.jit.script(nn.Linear(2, 2))), "a TorchScript archive; load it"),
    "traced TorchScript": (
        lambda: saved(torch.jit.save, torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))),
        "a TorchScript archive",
    ),
    "torch.export": (lambda: zip_of("net/models/model.json", "net/data/weights/weight_0"), "a torch.export program"),
    "torch.package": (lambda: zip_of("net/.data/extern_modules", "net/model.py"), "a torch.package archive"),
    "npz": (lambda: saved(lambda out: np.savez(out, a=np.ones(2), b=np.ones(3))), "a NumPy archive"),
    "npy": (lambda: saved(lambda out: np.save(out, np.ones(2))), "a NumPy array"),
    "keras": (lambda: zip_of("metadata.json", "config.json", "model.weights.h5"), "a Keras archive"),
    "zip": (lambda: zip_of("readme.txt", "b"), "a zip archive of 'readme.txt', 'b'"),
    "zips in a row": (
        lambda: 2 * saved(torch.save, STATE),
        "zip archives one after another, as in folders of torch.dist",
    ),
    "protocol 4": (
        lambda: saved(lambda out: torch.save(STATE, out, pickle_protocol=4)),
        "as of protocol 4 or 5; save it",
    ),
    "empty zip": (zip_of, "a zip archive of nothing"),
    "ONNX": (lambda: b"\x08\x07" + message(2, b"pytorch") + message(7, bytes(900)), "an ONNX model"),
    "ONNX, graph cut": (lambda: b"\x08\x0a" + message(8, b"ab") + message(7, bytes(900))[:99], "an ONNX model"),
    "another protocol buffer": (lambda: b"\x08\x07" + message(12, b"a"), "begins with b'\\x08\\x07b"),
    "GGUF": (lambda: b"GGUF" + bytes(60), "a GGUF model"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(60), "an HDF5 file"),
    "TFLite": (lambda: b"\x1c\0\0\0TFL3" + bytes(60), "a TensorFlow Lite model"),
    "lac": (lambda: b"\x89LAC" + bytes(60), "a .lac file; decompress it"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(60), "a gzip file"),
    "tar": (lambda: tar_of("a"), "a tar archive"),
    "Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "web page": (lambda: b"\n<!DOCTYPE html><html></html>", "a web page"),
    "JSON": (lambda: b'{"architectures": ["Bert"]}', "JSON without an index"),
    "broken JSON": (lambda: b'{"weight_map": {', "a damaged file of JSON"),
    "cut safetensors": (lambda: save({"w": torch.ones(200)})[:40], "a damaged one, of 40 bytes with a header of"),
    "cut data": (lambda: save({"w": torch.ones(200)})[:-40], "a damaged one"),
    "cut zip": (lambda: saved(torch.save, STATE)[:-30], "a damaged one, a zip archive without its list of files"),
    "cut pickle": (
        lambda: saved(lambda out: torch.save(STATE, out, _use_new_zipfile_serialization=False))[:-9],
        "a damaged one",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_read_is_named_in_one_line(tmp_path, case):
    make, found = FOREIGN[case]
    path = tmp_path / "model.safetensors"  # the name is not what tells
    path.write_bytes(make())
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: expected a safetensors file or a PyTorch checkpoint, found ")
    assert found in text and "\n" not in text


@pytest.mark.timeout(20)
def test_pipes_and_sockets_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(CheckpointError, match=f"{name}: expected .* found neither a file nor a folder"):
                open_checkpoint(tmp_path / name)
