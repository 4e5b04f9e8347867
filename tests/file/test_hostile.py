"""Damaged and malicious files: a named error, or what the checksums vouch for; nothing else."""

import random
import zlib

import pytest
import torch

import laconic
from laconic.coding.bits import varint
from laconic.errors import FormatError, LaconicError, LimitError, UnsupportedError
from laconic.file import container

N_MUTANTS = 12_000


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("originals")
    scales = 2.0 ** (torch.arange(64) % 5)[:, None]
    tied = torch.randn(8, 8)
    files = {
        "rows": {"w": torch.randn(64, 60) * scales, "w.bias": torch.randn(64)},
        "sparse": {"a": torch.randn(40, 50) * (torch.rand(40, 50) < 0.05), "b": tied, "c": tied},
        "types": {"h": torch.randn(9, 9).half(), "i": torch.arange(5), "e": torch.zeros(0, 3)},
    }
    out = []
    for name, tensors in files.items():
        path = folder / name
        laconic.save(tensors, path)
        out.append((path.read_bytes(), laconic.load(path)))
    return out


def mutate(data, rng):
    data = bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:
        return bytes(data) + rng.randbytes(rng.randint(1, 9))
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(80, len(data)))
        if kind == 2:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            data[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif kind == 4:
            del data[at : at + rng.randint(1, 5)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 5))
        if not data:
            break
    return bytes(data)


def reseal(data):
    """Recompute both kinds of checksum, as an attacker would, where the directory still parses."""
    try:
        source = container.Cursor(data[5:], "mutant")
        n_directory = source.varint()
        end = 5 + source.at + n_directory
        head, chunks = data[:end], data[end + 4 :]
        entries = container._entries(container.Cursor(head[5 + source.at :], "d"), 0, len(chunks))
    except LaconicError:
        return data
    for entry in entries.values():
        if entry.tied_to is None:
            chunk = chunks[entry.offset : entry.offset + entry.n_chunk_bytes]
            head = head.replace(entry.checksum.to_bytes(4, "little"), zlib.crc32(chunk).to_bytes(4, "little"), 1)  # fmt: skip
    return head + zlib.crc32(head).to_bytes(4, "little") + chunks


def check(path, data, truth=None):
    path.write_bytes(data)
    try:
        tensors = laconic.load(path, max_bytes=1 << 22)
    except LaconicError as error:
        assert str(error)
        return "refused"
    if truth is not None:
        assert list(tensors) == list(truth)
        assert all(torch.equal(tensors[n], t) for n, t in truth.items())
    return "decoded"


def test_mutated_files_are_refused_or_unchanged(originals, tmp_path):
    rng = random.Random(0)
    outcomes = set()
    for i in range(N_MUTANTS):
        data, truth = originals[i % len(originals)]
        mutant = mutate(data, rng)
        outcomes.add(check(tmp_path / "mutant", mutant, truth) if mutant != data else "same")
    assert outcomes <= {"refused", "same"}, "every byte is under a checksum"


def test_mutated_files_with_honest_checksums_decode_or_are_refused(originals, tmp_path):
    rng = random.Random(1)
    outcomes = [
        check(tmp_path / "mutant", reseal(mutate(originals[i % 3][0], rng))) for i in range(N_MUTANTS)
    ]
    assert outcomes.count("decoded") > 100, "some mutants must get past the checksums"
    assert outcomes.count("refused") > 100


def seal(directory, chunks=b"", version=1):
    head = container.MAGIC + bytes([version]) + varint(len(directory)) + directory
    return head + zlib.crc32(head).to_bytes(4, "little") + chunks


def entry(name=b"w", form=0, shape=(2,), chunk=b"", shared=0):
    shape = varint(len(shape)) + b"".join(map(varint, shape))
    crc = zlib.crc32(chunk).to_bytes(4, "little")
    return varint(shared) + varint(len(name)) + name + bytes([form]) + shape + varint(len(chunk)) + crc


EIGHT = bytes(8)
HUGE = (1 << 41, 1 << 20)
CRAFTED = {
    "empty": (b"", FormatError, "expected a .lac file"),
    "foreign": (b"PK\3\4" + bytes(50), FormatError, "expected a .lac file"),
    "newer": (seal(b"\0", version=9), UnsupportedError, "version 9"),
    "directory beyond the end": (container.MAGIC + b"\1" + varint(1 << 60) + bytes(9), FormatError, "truncated"),
    "more entries than bytes": (seal(varint(1 << 60)), FormatError, "more bytes"),
    "trailing bytes": (seal(b"\1" + entry(chunk=EIGHT), EIGHT + b"\0"), FormatError, "describes"),
    "missing chunk": (seal(b"\1" + entry(chunk=EIGHT)), FormatError, "describes"),
    "bytes after the entries": (seal(b"\0\0"), FormatError, "directory's end"),
    "a name twice": (seal(b"\2" + 2 * entry(chunk=EIGHT), EIGHT * 2), FormatError, "twice"),
    "no name": (seal(b"\1" + entry(b"")), FormatError, "a name of 1 to"),
    "an endless name": (seal(b"\1" + entry(b"x" * 1025)), FormatError, "a name of 1 to"),
    "a name that is not text": (seal(b"\1" + entry(b"\xff")), FormatError, "UTF-8"),
    "a prefix of nothing": (seal(b"\1" + entry(shared=3)), FormatError, "a name of 1 to"),
    "a shape of 2^61": (seal(b"\1" + entry(shape=HUGE)), FormatError, "fewer than"),
    "zeros for terabytes": (seal(b"\1" + entry(shape=(1 << 40,), form=0x10, chunk=EIGHT), EIGHT), LimitError, "above the limit"),
    "many dimensions": (seal(b"\1" + entry(shape=(1,) * 65)), FormatError, "at most 64 dimensions"),
    "tied to itself": (seal(b"\1\0\1w\x20\0"), FormatError, "an earlier entry"),
    "exact, too short": (seal(b"\1" + entry(chunk=EIGHT[:7]), EIGHT[:7]), FormatError, "a chunk of 8 bytes"),
    "a boolean of 2": (seal(b"\1" + entry(form=9, shape=(1,), chunk=b"\2"), b"\2"), FormatError, "0 and 1"),
    "integers on a grid": (seal(b"\1" + entry(form=0x17, chunk=EIGHT), EIGHT), FormatError, "floating type"),
    "a step of zero": (seal(b"\1" + entry(form=0x10, chunk=EIGHT), EIGHT), FormatError, "positive finite step"),
    "an infinite step": (seal(b"\1" + entry(form=0x10, chunk=b"\x80\x7f"), b"\x80\x7f"), FormatError, "positive finite step"),
    "an unknown method": (seal(b"\1" + entry(form=0x70, chunk=EIGHT), EIGHT), UnsupportedError, "method 7"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_are_refused_by_name(name, tmp_path):
    data, error, message = CRAFTED[name]
    (tmp_path / "crafted").write_bytes(data)
    with pytest.raises(error, match=message):
        laconic.load(tmp_path / "crafted")


def test_other_tensors_of_a_file_with_an_unknown_method_are_read(tmp_path):
    data = seal(b"\2" + entry(form=0x70, chunk=EIGHT) + entry(b"v", chunk=EIGHT), EIGHT * 2)
    (tmp_path / "newer").write_bytes(data)
    assert laconic.load(tmp_path / "newer", names=["v"])["v"].tolist() == [0.0, 0.0]


def test_long_names_do_not_multiply(tmp_path):
    """A directory of shared prefixes cannot name gigabytes."""
    first = entry(b"x" * 1024, shape=(0,))
    rest = [entry(bytes([i]), shape=(0,), shared=1023) for i in range(1, 100)]
    (tmp_path / "names").write_bytes(seal(bytes([100]) + first + b"".join(rest)))
    assert len(laconic.load(tmp_path / "names")) == 100
