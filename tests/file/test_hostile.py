"""Damaged and malicious files: a named error, or what the checksums vouch for; nothing else."""

import contextlib
import random
import zlib

import numpy as np
import pytest
import torch
from torch import nn

import laconic
from laconic.codec.spec import DTYPES
from laconic.coding import adaptive, stream
from laconic.coding.bitio import varint, zigzag
from laconic.errors import FormatError, LaconicError, LimitError, MismatchError, UnsupportedError
from laconic.file import container
from laconic.file.contents import inspect
from laconic.model.modules import state_digest
from tests.file.test_golden import FOLDER
from tests.fuzz import surgeon
from tests.fuzz.surgeon import seal
from tests.support.files import plan_of
from tests.support.layouts import in_rows

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
    path = folder / "other.lac"
    for name, tensors in files.items():
        laconic.save(tensors, folder / name)
        out.append(((folder / name).read_bytes(), laconic.load(folder / name)))
    for tensors, base in ((PLANES, None), (CHILD, PARENT)):
        laconic.save(tensors, path, None, base=base)
        out.append((path.read_bytes(), laconic.load(path, base=PARENT)))
    streams = ("row-classes", "outliers", "column-drops", "formula-drops", "predicted-static", "extremes")
    for name in (*streams, "adaptive-codebook", "fixed-bits"):
        golden = FOLDER / f"{name}.lac"
        out.append((golden.read_bytes(), laconic.load(golden)))
    laconic.save(laconic.shrink(dense(), PLAN), path, plan=PLAN)
    return [*out, (path.read_bytes(), laconic.load(path))]


PARENT = {"w": torch.linspace(-1, 2, 900).reshape(30, 30), "i": torch.arange(200)}
CHILD = {"w": PARENT["w"] * 1.001, "i": PARENT["i"] * 3, "b": torch.ones(3)}
PLANES = {
    "w": torch.linspace(-1, 1, 1200).square().reshape(30, 40),
    "z": torch.linspace(0, 1, 900).reshape(30, 30).relu() * (torch.arange(900).reshape(30, 30) % 5 == 0),
    "i": torch.arange(300),
    "flags": torch.arange(600) % 7 == 0,
}


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.n_heads = 4


def dense():
    return nn.Sequential(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.Linear(9, 4), Counts(), nn.Sequential(nn.Linear(4, 4)))


KEPT = torch.tensor([0, 4, 5, 8])
PLAN = laconic.surgery.Plan(
    {f"1.{name}": (9,) for name in ("bias", "running_mean", "running_var", "weight")} | {"0.bias": (9,), "0.weight": (9, 5), "2.weight": (4, 9)},
    {f"1.{name}": {0: KEPT} for name in ("bias", "running_mean", "running_var", "weight")} | {"0.bias": {0: KEPT}, "0.weight": {0: KEPT}, "2.weight": {1: KEPT}},
    {("3", "n_heads"): 2},
    {"4": 0},
)  # fmt: skip


def mutate(data, rng):
    data = bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:
        return bytes(data) + rng.randbytes(rng.randint(1, 9))
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data))
        if rng.random() < 0.5:  # in the directory
            at = len(data) - 1 - rng.randrange(min(80, len(data)))
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
        chunks, directory = surgeon.divided(data)
        entries = container._entries(container.Cursor(directory, "d"), 0, len(chunks))
    except LaconicError:
        return data
    for entry in entries.values():
        if entry.n_bytes_before:
            chunk = chunks[entry.offset : entry.offset + entry.n_chunk_bytes]
            directory = directory.replace(entry.checksum.to_bytes(4, "little"), zlib.crc32(chunk).to_bytes(4, "little"), 1)  # fmt: skip
    return seal(directory, chunks)


def check(path, data, truth=None):
    path.write_bytes(data)
    try:
        with laconic.file.Reader(path) as reader:
            assert reader.plan is None or isinstance(reader.plan, laconic.surgery.Plan)
        tensors = laconic.load(path, limit=1 << 22, base=PARENT)
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
        check(tmp_path / "mutant", reseal(mutate(originals[i % len(originals)][0], rng))) for i in range(N_MUTANTS)
    ]
    assert outcomes.count("decoded") > 100, "some mutants must get past the checksums"
    assert outcomes.count("refused") > 100


def test_mutated_plans_with_honest_checksums_cut_a_model_or_leave_it_alone(originals, tmp_path):
    """Mutants differ in the plan alone, so that many of them are valid plans, though few fit the model."""
    data, path, rng = originals[-1][0], tmp_path / "mutant", random.Random(2)
    (line, plan), *_ = reversed(surgeon.dissect(data))
    end = data.index(line + surgeon.placed(plan)[0]) + len(line) + 1 + len(plan)
    assert len(plan) <= container.MAX_INLINE_BYTES
    outcomes = set()
    for _ in range(N_MUTANTS // 12):
        mutant = bytearray(data)
        for _ in range(rng.choice([1, 1, 2])):
            mutant[end - rng.randint(1, len(plan))] = rng.choice([0, 1, 2, 3, 127, 255, rng.randrange(256)])
        path.write_bytes(reseal(bytes(mutant)))
        model = dense()
        before = {name: id(t) for name, t in model.state_dict(keep_vars=True).items()}
        try:
            laconic.load(path, into=model)
            outcomes.add("cut")
        except LaconicError as error:
            outcomes.add(type(error).__name__)
            assert {name: id(t) for name, t in model.state_dict(keep_vars=True).items()} == before
            assert (model[0].out_features, model[3].n_heads, type(model[4])) == (9, 4, nn.Sequential)
        assert type(model[3].n_heads) is int
    assert outcomes == {"cut", "FormatError", "MismatchError"}


def entry(name=b"w", spec=0, shape=(2,), chunk=b"", shared=0):
    shape = varint(len(shape)) + b"".join(map(varint, shape))
    begun, _ = surgeon.placed(chunk)
    return varint(shared) + varint(16 * len(name)) + name + bytes([spec]) + shape + begun


EIGHT, EIGHTY = bytes(8), bytes(80)
HUGE = (1 << 41, 1 << 20)
CRAFTED = {
    "empty": (b"", FormatError, "expected a .lac file"),
    "foreign": (b"PK\3\4" + bytes(50), FormatError, "expected a .lac file"),
    "newer": (seal(b"\0", version=9), UnsupportedError, "version 9"),
    "directory beyond the end": (container.HEAD + bytes(9) + varint(1 << 60)[::-1] + bytes(4), FormatError, "cut short"),
    "more entries than bytes": (seal(varint(1 << 60)), FormatError, "more bytes"),
    "trailing bytes": (seal(b"\1" + entry(chunk=EIGHT), b"\0"), FormatError, "describes"),
    "missing chunk": (seal(b"\1" + entry(shape=(20,), chunk=EIGHTY)), FormatError, "describes"),
    "a damaged chunk": (seal(b"\1" + entry(shape=(20,), chunk=EIGHTY), EIGHTY[1:] + b"\1"), FormatError, "w: expected checksum"),
    "half a checksum": (seal(b"\1" + entry(shape=(20,), chunk=EIGHTY)[:-2]), FormatError, "4 more bytes"),
    "a chunk beyond the directory": (seal(b"\1" + entry(chunk=EIGHT)[:-1], b"\0"), FormatError, "8 more bytes"),
    "a small chunk before its checksum": (seal(b"\1" + entry(chunk=EIGHT)[:-4], EIGHT), FormatError, "8 more bytes"),
    "bytes after the entries": (seal(b"\0\0"), FormatError, "directory's end"),
    "a name twice": (seal(b"\2" + 2 * entry(chunk=EIGHT)), FormatError, "twice"),
    "no name": (seal(b"\1" + entry(b"")), FormatError, "a name of 1 to"),
    "an endless name": (seal(b"\1" + entry(b"x" * 1025)), FormatError, "a name of 1 to"),
    "a name that its ending makes long": (seal(b"\1\0" + varint(16 * 1018 + 1) + b"x" * 1018 + bytes(3)), FormatError, "a name of 1 to"),
    "a name that is not text": (seal(b"\1" + entry(b"\xff")), FormatError, "UTF-8"),
    "a prefix of nothing": (seal(b"\1" + entry(shared=3)), FormatError, "a name of 1 to"),
    "a shape of 2^61": (seal(b"\1" + entry(shape=HUGE)), FormatError, "fewer than"),
    "zeros for terabytes": (seal(b"\1" + entry(shape=(1 << 40,), spec=0x10, chunk=EIGHT)), LimitError, "above the limit"),
    "many dimensions": (seal(b"\1" + entry(shape=(1,) * 65)), FormatError, "at most 64 dimensions"),
    "tied to itself": (seal(b"\1\0\x10w\x20\0"), FormatError, "an earlier entry"),
    "tied, with a type": (seal(b"\2" + entry(chunk=EIGHT) + b"\0\x10v\x21\0"), FormatError, "without a type"),
    "exact, too short": (seal(b"\1" + entry(chunk=EIGHT[:7])), FormatError, "a chunk of 8 bytes"),
    "a boolean of 2": (seal(b"\1" + entry(spec=9, shape=(1,), chunk=b"\2")), FormatError, "0 and 1"),
    "integers on a grid": (seal(b"\1" + entry(spec=0x17, chunk=EIGHT)), FormatError, "floating type"),
    "no integers on a grid": (seal(b"\1" + entry(spec=0x17, shape=(0,))), FormatError, "floating type"),
    "integers of a codebook": (seal(b"\1" + entry(spec=0x77, chunk=EIGHT)), FormatError, "floating type"),
    "no integers of a codebook": (seal(b"\1" + entry(spec=0x77, shape=(0,))), FormatError, "floating type"),
    "integers at the rows' scales": (seal(b"\1" + entry(spec=0x87, chunk=EIGHT)), FormatError, "floating type"),
    "a scale of zero": (seal(b"\1" + entry(spec=0x10, chunk=EIGHT)), FormatError, "positive finite scale"),
    "an infinite scale": (seal(b"\1" + entry(spec=0x10, chunk=b"\x80\x7f")), FormatError, "positive finite scale"),
    "an unknown method": (seal(b"\1" + entry(spec=0xF0, chunk=EIGHT)), UnsupportedError, "method 15"),
}  # fmt: skip


def of_one(*parts, spec=0x10, shape=(3, 2)):
    """A file of one tensor, whose chunk is `parts`."""
    chunk = b"".join(parts)
    _, before = surgeon.placed(chunk)
    return seal(b"\1" + entry(spec=spec, shape=shape, chunk=chunk), before)


def planes(chunk, spec=0x40, shape=(2,)):
    return of_one(chunk, spec=spec, shape=shape)


RAW = b"\0" + bytes(2)  # a plane of two zeros
COUNT = "lengths of blocks"
CRAFTED_PLANES = {
    "no block length": (planes(b"\0"), COUNT),
    "more blocks than bytes": (planes(b"\1" + bytes(9), shape=(1 << 19,)), COUNT),
    "a block beyond the end": (planes(b"\2\x40\0"), "more bytes"),
    "bytes after the blocks": (planes(b"\2\x0d\0" + RAW * 4 + b"\0"), "the last block's end"),
    "a flag of 2": (planes(b"\2\x0d\2" + RAW * 4), "a flag of 0 or 1"),
    "a kind of 3": (planes(b"\2\x0d\0" + RAW * 3 + b"\3\0\0"), "a kind of plane below 3"),
    "a plane cut short": (planes(b"\2\x0c\0" + RAW * 3 + b"\0\0"), "more bytes"),
    "a plane too many": (planes(b"\2\x10\0" + RAW * 5), "the planes' end"),
    "a plane that zeros leave out": (planes(b"\2\x0d\1" + RAW * 4), "the planes' end"),
    "a stream without end": (planes(b"\2\x0d\0\2" + varint(1 << 60) + bytes(2)), "more bytes"),
    "a stream of nothing": (planes(b"\2\x03\0\2\0"), "more bytes"),
    "a boolean of 2": (planes(b"\2\4\0\0\2\2", spec=0x49), "0 and 1"),
    "a parent's type": (seal(b"\1" + entry(b"p", 0x61, (), bytes(32))), "without type"),
    "a short parent": (seal(b"\1" + entry(b"p", 0x60, (), bytes(31))), "expected 32 bytes"),
    "two parents": (
        seal(b"\2" + entry(b"p", 0x60, (), bytes(32)) + entry(b"q", 0x60, (), bytes(32))),
        "found 'q' after it",
    ),
    "a difference without a parent": (planes(b"\0", spec=0x50), "a parent's digest"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED_PLANES)
def test_crafted_planes_are_refused_by_name(name, tmp_path):
    data, message = CRAFTED_PLANES[name]
    (tmp_path / "crafted").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        laconic.load(tmp_path / "crafted")


def difference(chunk, shape=(2,), spec=0x50):
    """A file of one difference from a parent of two zeros."""
    digest = bytes.fromhex(state_digest({"w": torch.zeros(2)}))
    directory = b"\2" + entry(spec=spec, shape=shape, chunk=chunk) + entry(b"p", 0x60, (), digest)
    return seal(directory)


CRAFTED_DIFFERENCES = {
    "a mode of 2": (difference(b"\2"), "a delta's mode below 2"),
    "another shape": (difference(b"\0", shape=(3,)), r"a parent's tensor of \(3,\), torch.float32, found \(2,\)"),
    "another type": (difference(b"\0", spec=0x52), "a parent's tensor of"),
    "numbers of 33 bits": (difference(b"\0\2\3\0\1\x40"), "half octaves below 64"),
    "bits too few": (difference(b"\0\2\3\0\x0a\x0a"), "more bytes|bits and zeros"),
    "bits after the last": (difference(b"\0\2\4\0\4\4\1"), "2 bits and zeros"),
    "a bit too many": (difference(b"\0\2\3\1\2\0"), "0 bits and zeros"),
    "a scale of zero": (difference(b"\1\0\0"), "positive finite scale"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED_DIFFERENCES)
def test_crafted_differences_are_refused_by_name(name, tmp_path):
    data, message = CRAFTED_DIFFERENCES[name]
    (tmp_path / "crafted").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        laconic.load(tmp_path / "crafted", base={"w": torch.zeros(2)})


@pytest.mark.parametrize(("base", "error"), [(None, MismatchError), ({"w": torch.zeros(2)}, FormatError)])
def test_a_difference_of_any_size_is_not_described_on_its_own_word(base, error, tmp_path):
    """Differences are as large as the parent, so they are under no other limit; found by fuzzing."""
    coded = stream.write_static(np.array([0, 1] * 40, np.int32), in_rows(80))
    (tmp_path / "crafted").write_bytes(difference(b"\1\x80\x3f" + coded, shape=(1 << 44, 2)))
    with pytest.raises(error, match="w.*: expected"):
        laconic.describe(tmp_path / "crafted", base=base)


def planned(chunk, spec=0x30, shape=(), after=b""):
    """A file of an entry w of shape (2,), a tied one, and a plan."""
    directory = (
        bytes([3 + bool(after)]) + entry(chunk=EIGHT) + b"\0\x10v\x20\0" + entry(b"p", spec, shape, chunk) + after
    )
    return seal(directory)


SET = b"\1\3\xa0\1\0"  # one set: of 3 positions the first and the last stay, along axis 0 of entry 0
PLANS = {
    "an empty chunk": (planned(b""), "1 more bytes"),
    "sets without end": (planned(varint(1 << 60)), "1 more bytes"),
    "a bitmap beyond the end": (planned(b"\1" + varint(1 << 62)), "more bytes"),
    "a bitmap of nothing": (planned(b"\1\0\1\0\0\0"), "a position that stays"),
    "nothing stays": (planned(b"\1\3\0\1\0\0\0"), "a position that stays"),
    "bits after the end": (planned(b"\1\3\xb0\1\0\0\0"), "zeros after its end"),
    "a set without a place": (planned(b"\1\3\xa0\0\0\0"), "a bitmap that is used"),
    "places without end": (planned(b"\1\3\xa0" + varint(1 << 60)), "more bytes"),
    "another count of positions": (planned(b"\1\3\xe0\1\0\0\0"), r"a tensor with 3 positions along the axis, found w of \(2,\), axis 0"),
    "an axis too many": (planned(b"\1\3\xa0\1\1\1\0\0"), "w of .2,., axis 1"),
    "axis 0 written long": (planned(b"\1\3\xa0\1\1\0\0\0"), "an axis above 0"),
    "a tied entry": (planned(b"\1\3\xa0\1\2\0\0"), "found entry 1"),
    "the plan itself": (planned(b"\1\3\xa0\1\4\0\0"), "found entry 2"),
    "an entry that is not there": (planned(b"\1\3\xa0\1" + varint(1 << 62) + b"\0\0"), "found entry"),
    "a place twice": (planned(b"\1\3\xa0\2\0\0\0\0"), "increasing order"),
    "an axis in two sets": (planned(b"\2\3\xa0\1\0\2\xc0\1\0\0\0"), "an axis once"),
    "settings without end": (planned(SET + varint(1 << 60)), "more bytes"),
    "a setting without a name": (planned(SET + b"\1\0\0\1\0"), "a name of 1 to"),
    "a setting without an attribute": (planned(SET + b"\1\0\x20m.\1\0"), "an attribute"),
    "a setting of 0": (planned(SET + b"\1\0\x10n\0\0"), "above 0"),
    "a setting twice": (planned(SET + b"\2\0\x10n\1\1\0\1\0"), "names that differ"),
    "a name that is not text": (planned(SET + b"\1\0\x10\xff\1\0"), "UTF-8"),
    "blocks without end": (planned(SET + b"\0" + varint(1 << 60)), "more bytes"),
    "a block that returns too much": (planned(SET + b"\0\1\0\x10b\x41"), "at most 64 values"),
    "bytes after it": (planned(SET + b"\0\0\0"), "the plan's end"),
    "a plan with a type": (planned(SET + b"\0\0", spec=0x31), "without type and dimensions"),
    "a plan with an unknown type": (planned(SET + b"\0\0", spec=0x3F), "without type and dimensions"),
    "a plan with dimensions": (planned(SET + b"\0\0", shape=(1,)), "without type and dimensions"),
    "a plan before others": (planned(SET + b"\0\0", after=b"\0\x10z\x20\0"), "the plan as the last entry"),
}  # fmt: skip


def gridded(*parts, shape=(3, 2)):
    """A file of a float32 tensor on a grid, whose stream is `parts`."""
    return of_one(b"\x80\x3f", *parts, shape=shape)


def adaptively(*values, n_rows=1):
    return b"\x2f" + adaptive.encode(np.array(values, np.int32), in_rows(len(values), n_rows))


def prediction(shift, *coefficients):
    inner = adaptively(*coefficients)
    return bytes([0x1F, shift]) + varint(len(inner)) + inner


def formula(p=12, c=0, h=0, e=0, spikes=b"\0", width=7):
    """A static stream of one class by a formula, from −3, up to its tables; Rice codes are of order 0."""
    head = bytes([0, 8 | 64, 0]) + varint(5) + varint(width - 1)
    return head + bytes([p]) + varint(zigzag(c)) + bytes([h, e]) + spikes


def one_value(n_lanes=1):
    """The end of a stream whose symbols are all certain: no words."""
    return b"\0" + b"\0\0\1\0" * n_lanes


def certain(value):
    """A static stream of one integer alone, however many there are."""
    return bytes([0, 8, 0]) + varint(zigzag(value)) + b"\0\xa0" + one_value()


NOUGHTS = adaptively(*6 * [0], n_rows=3)
TWO_CLASSES = b"\0\0\0\xaa"  # of zeros alone, by levels; what stands after a header's first two bytes
LARGEST = adaptively(*6 * [2**31 - 1], n_rows=3)
STREAMS = {
    "no stream": (gridded(), "3 more bytes"),
    "an adaptive stream of drafts": (gridded(b"\x0f\0\0\1\0"), "a stream header"),
    "a byte too many": (gridded(LARGEST + b"\0"), "decode to the end"),
    "bytes that are missing": (gridded(LARGEST[:9]), "decode to the end"),
    "bytes behind an integer without end": (gridded(b"\x2f" + 40 * b"\xff"), "decode to the end"),
    "too many integers": (gridded(NOUGHTS, shape=(1 << 21,)), "at most 1,048,576 integers"),
    "a prediction in a prediction": (gridded(prediction(0, 0, 0, 0), prediction(0, 0, 0, 0), NOUGHTS), "a stream header"),
    "predicted coefficients": (gridded(b"\x1f\0", varint(len(LARGEST) + 3), b"\x1f\0\0", LARGEST, NOUGHTS), "a stream header"),
    "many predictions": (gridded(b"\x1f\0\0" * 5000), "3 more bytes"),
    "a prediction of one column": (gridded(prediction(0, 0), NOUGHTS, shape=(6, 1)), "columns of more rows"),
    "more columns than rows": (gridded(prediction(0, 0, 0, 0, 0, 0, 0), NOUGHTS, shape=(2, 3)), "columns of more rows"),
    "a vector that is predicted": (gridded(prediction(0, *21 * [0]), NOUGHTS, shape=(6,)), "columns of more rows"),
    "many columns": (gridded(prediction(0, 0, 0), NOUGHTS, shape=(2000, 1025)), "columns of more rows"),
    "a large shift": (gridded(prediction(11, 0, 0, 0), NOUGHTS), "a shift to 10"),
    "a large coefficient": (gridded(prediction(0, 0, 0, 2048), NOUGHTS), "coefficients of at most 2047"),
    "the least coefficient": (gridded(prediction(0, 0, 0, -(2**31)), NOUGHTS), "coefficients of at most 2047"),
    "coefficients beyond the end": (gridded(b"\x1f\0" + varint(1 << 60)), "more bytes"),
    "coefficients, and more": (gridded(b"\x1f\0", varint(len(certain(0)) + 1), certain(0), b"\0", NOUGHTS), "nothing after"),
    "no residuals": (gridded(prediction(0, 0, 0, 0)), "3 more bytes"),
    "a predicted integer of 33 bits": (gridded(prediction(0, 1, 0, 0), LARGEST), "32 bits"),
    "a formula with a resolution": (gridded(bytes([0, 8 | 64 | 16, 0]) + formula()[3:] + b"\0" + one_value()), "a formula without"),
    "columns without classes": (gridded(bytes([0, 8 | 128]) + certain(0)[2:]), "columns with classes"),
    "a wide formula": (gridded(bytes([0, 15 | 64, 0, 5]) + varint(4096) + formula()[5:] + one_value()), "at most 4096 integers"),
    "a wide formula of few slots": (gridded(formula(width=256) + one_value()), "a stream header"),
    "a formula that is cut": (gridded(formula()[:-2]), "more bytes"),
    "an exponent of 0": (gridded(formula(p=0) + one_value()), "a formula's parameters"),
    "a large exponent": (gridded(formula(p=64) + one_value()), "a formula's parameters"),
    "a large scale": (gridded(formula(c=1025) + one_value()), "a formula's parameters"),
    "a small scale": (gridded(formula(c=-1025) + one_value()), "a formula's parameters"),
    "a large escape": (gridded(formula(e=241) + one_value()), "a formula's parameters"),
    "a large spike": (gridded(formula(spikes=b"\xff" * 28 + b"\xc0") + one_value()), "a formula's parameters"),
    "an endless spike": (gridded(formula(spikes=b"\xff" * 5000) + one_value()), "tables of Rice codes"),
    "a row class that is too large": (gridded(b"\x10\x08" + TWO_CLASSES, certain(2), one_value()), "labels below 2"),
    "a row class below zero": (gridded(b"\x10\x08" + TWO_CLASSES, certain(-1), one_value()), "labels below 2"),
    "a drop that is too large": (gridded(b"\x10\x88" + TWO_CLASSES, certain(1), certain(2), one_value()), "labels below 2"),
    "a drop below zero": (gridded(b"\x10\x88" + TWO_CLASSES, certain(1), certain(-1), one_value()), "labels below 2"),
    "adaptive drops": (gridded(b"\x10\x88" + TWO_CLASSES, certain(1), NOUGHTS, one_value()), "a stream header"),
}  # fmt: skip


def test_the_streams_that_others_damage_are_read(tmp_path):
    path = tmp_path / "crafted"
    classes = b"\x10\x88" + TWO_CLASSES + certain(1) + certain(1) + one_value()
    for parts in ([NOUGHTS], [prediction(10, 0, 0, 0), NOUGHTS], [certain(0)], [classes]):
        path.write_bytes(gridded(*parts))
        assert not laconic.load(path)["w"].any()


def floats(*values):
    return np.array(values, "<f4").tobytes()


def codebook(n, values, origin, *q):
    return of_one(varint(n), values, varint(origin), adaptively(*q, n_rows=3), spec=0x70)


def rows(scales, *q, spec=0x80):
    return of_one(scales, adaptively(*q, n_rows=3), spec=spec)


ONES, THREE, VALUES = b"\x80\x3f" * 3, floats(-1, 0, 2), 6 * [0]
LEGENDS = {
    "no values": (codebook(0, b"", 0, *VALUES), "1 to 65,536 values"),
    "too many values": (codebook(65_537, floats(*range(65_537)), 0, *VALUES), "1 to 65,536 values"),
    "endless values": (codebook(1 << 60, b"", 0, *VALUES), "1 to 65,536 values"),
    "values beyond the end": (of_one(varint(3) + floats(1, 2), spec=0x70), "more bytes"),
    "values that fall": (codebook(3, floats(0, 2, 1), 0, *VALUES), "ascending order"),
    "a value twice": (codebook(3, floats(0, 1, 1), 0, *VALUES), "ascending order"),
    "zero and its negative": (codebook(3, floats(-0.0, 0, 1), 0, *VALUES), "ascending order"),
    "a value that is none": (codebook(3, floats(0, np.nan, 1), 0, *VALUES), "finite values"),
    "one value, and none": (codebook(1, floats(np.nan), 0, *VALUES), "finite values"),
    "an infinite value": (codebook(3, floats(0, 1, np.inf), 0, *VALUES), "finite values"),
    "values from minus infinity": (codebook(3, floats(-np.inf, 0, 1), 0, *VALUES), "finite values"),
    "an origin beyond the values": (codebook(3, THREE, 3, *VALUES), "an origin below 3"),
    "no indices": (of_one(varint(3) + THREE + b"\1", spec=0x70), "3 more bytes"),
    "an index above the values": (codebook(3, THREE, 1, 0, 1, -1, 0, 0, 2), "indices below 3"),
    "an index below the values": (codebook(3, THREE, 1, 0, 1, -1, 0, 0, -2), "indices below 3"),
    "the largest index": (codebook(3, THREE, 1, *5 * [0], 2**31 - 1), "indices below 3"),
    "the least index": (codebook(3, THREE, 1, *5 * [0], -(2**31)), "indices below 3"),
    "a row without a scale": (of_one(ONES[:4], spec=0x80), "6 more bytes"),
    "a row's scale of zero": (rows(ONES[:4] + b"\0\0", *VALUES), "positive finite scale"),
    "a row's infinite scale": (rows(ONES[:4] + b"\x80\x7f", *VALUES), "positive finite scale"),
    "a row's scale below zero": (rows(ONES[:4] + b"\x80\xbf", *VALUES), "positive finite scale"),
    "a row's scale that is none": (rows(ONES[:4] + b"\xc0\x7f", *VALUES), "positive finite scale"),
    "scales for many rows": (of_one(ONES, spec=0x80, shape=(1 << 20, 1)), "2097152 more bytes"),
    "a large value in the last row": (rows(ONES[:4] + b"\x7f\x7f", *4 * [0], 0, -2), "a larger q × scale"),
    "a large value in 16 bits": (rows(ONES, 0, 0, 65_505, 0, 0, 0, spec=0x81), "a larger q × scale"),
}  # fmt: skip


def test_the_legends_that_others_damage_are_read(tmp_path):
    path = tmp_path / "crafted"
    path.write_bytes(codebook(3, THREE, 1, 0, 1, -1, 0, 0, 1))
    assert laconic.load(path)["w"].tolist() == [[0, 2], [-1, 0], [0, 2]]
    path.write_bytes(rows(ONES[:4] + b"\x00\x3f", 0, 1, -1, 0, 0, 1))
    assert laconic.load(path)["w"].tolist() == [[0, 1], [-1, 0], [0, 0.5]]


CHUNKS = {**STREAMS, **LEGENDS}


@pytest.mark.parametrize("name", CHUNKS)
def test_crafted_chunks_are_refused_by_name(name, tmp_path):
    data, message = CHUNKS[name]
    (tmp_path / "crafted").write_bytes(data)
    for action in (laconic.load, inspect):
        with pytest.raises(FormatError, match=message):
            action(tmp_path / "crafted")
    with contextlib.suppress(FormatError):  # which does not decode
        laconic.describe(tmp_path / "crafted")


def test_the_plan_that_the_next_ones_damage_is_read(tmp_path):
    (tmp_path / "crafted").write_bytes(planned(SET + b"\0\0"))
    assert plan_of(tmp_path / "crafted") == laconic.surgery.Plan({"w": (3,)}, {"w": {0: torch.tensor([0, 2])}})


@pytest.mark.parametrize("name", PLANS)
def test_crafted_plans_are_refused_by_name(name, tmp_path):
    data, message = PLANS[name]
    (tmp_path / "crafted").write_bytes(data)
    with pytest.raises(FormatError, match=message), laconic.file.Reader(tmp_path / "crafted") as reader:
        assert reader.plan


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_are_refused_by_name(name, tmp_path):
    data, error, message = CRAFTED[name]
    (tmp_path / "crafted").write_bytes(data)
    with pytest.raises(error, match=message):
        laconic.load(tmp_path / "crafted")


@pytest.mark.parametrize("dtype", DTYPES)
def test_files_of_any_type_are_inspected_and_described(dtype, tmp_path):
    """Found by fuzzing: PyTorch does not count the non-zero numbers of float8."""
    tensors = {"t": torch.tensor([0.0, 1.0, 2.0, 0.0]).to(dtype), "e": torch.zeros(0, 3, dtype=dtype)}
    laconic.save(tensors, tmp_path / "t.lac", quantizer=None)
    found = inspect(tmp_path / "t.lac")
    assert [row["zeros"] for row in found["tensors"]] == [2, 0]
    assert laconic.describe(tmp_path / "t.lac").model_bits == 8 * (tmp_path / "t.lac").stat().st_size


def test_other_tensors_of_a_file_with_an_unknown_method_are_read(tmp_path):
    data = seal(b"\2" + entry(spec=0xF0, chunk=EIGHT) + entry(b"v", chunk=EIGHT))
    (tmp_path / "newer").write_bytes(data)
    assert laconic.load(tmp_path / "newer", names=["v"])["v"].tolist() == [0.0, 0.0]


def test_long_names_do_not_multiply(tmp_path):
    """A directory of shared prefixes cannot name gigabytes."""
    first = entry(b"x" * 1024, shape=(0,))
    rest = [entry(bytes([i]), shape=(0,), shared=1023) for i in range(1, 100)]
    (tmp_path / "names").write_bytes(seal(bytes([100]) + first + b"".join(rest)))
    assert len(laconic.load(tmp_path / "names")) == 100
