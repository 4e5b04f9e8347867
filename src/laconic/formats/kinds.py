"""Which kind of file this is, told by its structure, never by its name or by one byte.

Kinds that are not read are named, with what to do instead. Safetensors come first: their length of the header may have
any first byte, also those of a zip archive or of a pickle.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from laconic.errors import CheckpointError

EXPECTED = "expected a safetensors file or a PyTorch checkpoint"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
N_HEAD_BYTES = 512
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that begins PyTorch's files before the zip archives
ADVICE = "load it and save its state_dict()"
# Of files that say so themselves: where, with what bytes, and what they are.
MAGICS = (
    (0, b"GGUF", "a GGUF model"),
    (0, b"tjgg", "a GGML model"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file, as Keras writes them; {ADVICE.replace('state_dict()', 'weights')}"),
    (0, b"\x89LAC", "a .lac file; decompress it first"),
    (0, b"\x1f\x8b", "a gzip file; decompress it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file; decompress it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file; fetch it by git lfs pull"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (257, b"ustar", "a tar archive; extract it first"),
)
# Files of zip archives below their first folder, by which the archives are known.
ZIPPED = (
    ("constants.pkl", f"a TorchScript archive; {ADVICE}"),
    ("models/model.json", f"a torch.export program; {ADVICE}"),
    ("serialized_exported_program.json", f"a torch.export program; {ADVICE}"),
    (".data/extern_modules", f"a torch.package archive; {ADVICE}"),
    ("model.weights.h5", "a Keras archive; load it and save its weights"),
)
# Numbers of the fields of ONNX's ModelProto that are integers, and of those that have a length.
ONNX_INTEGERS, ONNX_VERSION, ONNX_SIZED, ONNX_GRAPH = {1, 5}, 1, {2, 3, 4, 6, 7, 8, 14, 20, 25, 26}, 7


class Kind(Enum):
    """A kind of file that is read."""

    SAFETENSORS, PYTORCH, INDEX = range(3)


def kind_of(path: Path) -> Kind:
    """The kind of a file; CheckpointError, with what it is instead, if it is of none that is read."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError(f"{path}: {EXPECTED}, found neither a file nor a folder")
    with path.open("rb") as file:
        found = _recognized(file, os.fstat(file.fileno()).st_size)
    if isinstance(found, Kind):
        return found
    raise CheckpointError(f"{path}: {EXPECTED}, found {found}")


def _recognized(file: BinaryIO, n_bytes: int) -> Kind | str:
    head = file.read(N_HEAD_BYTES)
    n_header_bytes = int.from_bytes(head[:8], "little")
    begins_header = head[8:9] == b"{" and n_header_bytes <= MAX_HEADER_BYTES
    if begins_header and 8 + n_header_bytes <= n_bytes:
        return Kind.SAFETENSORS
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _zipped(file)
    if head.startswith(b"\x80") and LEGACY_MAGIC in head[:32]:
        return Kind.PYTORCH
    if begins_header:
        return f"a damaged one, of {n_bytes} bytes with a header of {n_header_bytes}, as if cut short"
    if head.lstrip()[:1] == b"{":
        return _json(file)
    return _foreign(head) or ("an ONNX model" if _is_onnx(file, n_bytes) else f"a file that begins with {head[:9]!r}")


def _foreign(head: bytes) -> str:
    """What else a file is by its first bytes; empty if they do not tell."""
    if text := next((what for at, magic, what in MAGICS if head[at:].startswith(magic)), ""):
        return text
    if head.lstrip()[:5].lower() in {b"<!doc", b"<html"}:
        return "a web page, as a failed download leaves"
    if head[:1] == b"\x80" and head[1:2] in {b"\2", b"\3", b"\4", b"\5"}:
        return "a pickle that torch.save did not write, which is not loaded; save the model's state_dict() instead"
    return "" if head else "an empty file"


def _zipped(file: BinaryIO) -> Kind | str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            begins_at = min((info.header_offset for info in archive.infolist()), default=0)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return "a damaged one, a zip archive without its list of files, as if cut short"
    if begins_at:
        return "zip archives one after another, as in folders of torch.distributed.checkpoint"
    below = {name.partition("/")[2] for name in names} | set(names)
    if text := next((what for name, what in ZIPPED if name in below), ""):
        return text
    if "data.pkl" in below:
        return Kind.PYTORCH
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive; save its arrays as tensors"
    return f"a zip archive of {', '.join(map(repr, names[:3])) or 'nothing'}"


def _json(file: BinaryIO) -> Kind | str:
    file.seek(0)
    try:
        found = json.loads(file.read(MAX_HEADER_BYTES))
    except (ValueError, RecursionError):
        return "a damaged file of JSON"
    return Kind.INDEX if "weight_map" in found else "a file of JSON without an index's weight_map"


def _is_onnx(file: BinaryIO, n_bytes: int) -> bool:
    """Whether a protocol buffer of ModelProto's fields begins here: first the version, and among them a graph."""
    file.seek(0)
    field = 0
    while file.tell() < n_bytes:
        before = field
        field, wire = divmod(_varint(file), 8)
        value = _varint(file)
        if before == 0 and field != ONNX_VERSION:
            return False
        if field == ONNX_GRAPH and wire == 2:
            return True
        if wire == 2 and field in ONNX_SIZED:
            file.seek(value, os.SEEK_CUR)
        elif wire != 0 or field not in ONNX_INTEGERS:
            return False
    return False


def _varint(file: BinaryIO) -> int:
    value = 0
    for place in range(0, 63, 7):
        byte = (file.read(1) or b"\0")[0]
        value |= (byte & 127) << place
        if byte < 128:
            break
    return value
