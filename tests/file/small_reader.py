"""A second reader of `.lac` files: plain Python, written from docs/format.md alone, slow, and no part of Laconic.

It proves that the page is a specification. `read` gives names, types, shapes and values, these as the bytes of
the decoded elements, so that floats compare bit by bit; whatever the page does not allow is `Refused`.

A chunk's method is one function of METHODS: (entry, its bytes, the entries before it) → what the chunk means.
The integers of the methods grid, codebook and rows are read by `small_streams`.
"""

import hashlib
import itertools
import math
import struct
import zlib
from dataclasses import dataclass

from tests.file import small_planes
from tests.file.small_bytes import Bits, Bytes, Refused, check
from tests.file.small_streams import Layout, integers

__all__ = ["Refused", "directory", "plan", "read"]
NOTES = (3, 6)  # methods that are no tensors


@dataclass
class Entry:
    """A line of the directory; `original` is the index of the entry that a tied one repeats."""

    name: str
    type: int
    method: int
    original: int | None = None
    shape: tuple = ()
    n_bytes: int = 0  # of the decoded tensor
    n_chunk_bytes: int = 0
    checksum: int | None = None  # none of a chunk in the directory
    chunk: bytes = b""
    parent: bytes | None = None  # the elements of the parent's tensor


def read(data, wanted=None, most_bytes=None, parent=None):
    """Name → (type, shape, values) for the tensors `wanted`, by default all; `parent` is of the same kind."""
    entries = directory(data)
    for entry in entries:
        if entry.method == 5:
            check(parent and digest(parent) == contents(named(entries), entries), "no parent, or another one")
            kind, shape, entry.parent = parent.get(entry.name, (None, None, None))
            check((kind, shape) == (TYPES[entry.type], entry.shape), "the parent's tensor")
    holders = {e.name: e if e.original is None else entries[e.original] for e in entries if e.method not in NOTES}
    found = {name: e for name, e in holders.items() if wanted is None or name in wanted}
    limit = (64 << 20) + 1000 * len(data) if most_bytes is None else most_bytes
    check(sum(entry.n_bytes for entry in found.values()) <= limit, "more bytes than the limit")
    values = {name: contents(entry, entries) for name, entry in found.items()}
    return {name: (TYPES[entry.type], entry.shape, values[name]) for name, entry in found.items()}


def named(entries):
    """The parent's entry."""
    found = [entry for entry in entries if entry.method == 6]
    check(found, "differences without a parent")
    return found[0]


def digest(state):
    lines = hashlib.sha256()
    for name in sorted(state, key=str.encode):
        kind, shape, values = state[name]
        about = [len(name.encode()), name, kind, "x".join(map(str, shape)), hashlib.sha256(values).hexdigest()]
        lines.update((" ".join(map(str, about)) + "\n").encode())
    return lines.digest()


def plan(data):
    """The sets, settings and left-out modules of the file's plan, None if it has none."""
    entries = directory(data)
    return next((contents(entry, entries) for entry in entries if entry.method == 3), None)


def contents(entry, entries):
    check(entry.checksum in (None, zlib.crc32(entry.chunk)), f"{entry.name}: checksum")
    check(entry.method in METHODS and entry.type < len(TYPES), f"{entry.name}: unknown method or type")
    source = Bytes(entry.chunk)
    values = METHODS[entry.method](entry, source, entries)
    check(not source.rest(), f"{entry.name}: bytes after the chunk's end")
    return values


def directory(data):
    check(data[:5] == b"\x89LAC\1", "magic or version")
    length = Bytes(data[5:-4][::-1][:9])
    end = len(data) - 4
    begin = end - length.varint() - length.at
    check(begin >= 5, "a directory longer than the file")
    check(zlib.crc32(data[:5] + data[begin:end]) == int.from_bytes(data[end:], "little"), "the directory's checksum")
    chunks, lines = Bytes(data[5:begin]), Bytes(data[begin : end - length.at])
    entries, previous = [], b""
    for _ in range(lines.varint()):
        previous = lines.name(previous)
        entries.append(line(lines, previous.decode(), entries))
    methods = [entry.method for entry in entries]
    notes = [method for method in methods if method in NOTES]
    check(notes in ([], [3], [6], [6, 3]) and methods[len(methods) - len(notes) :] == notes, "notes elsewhere")
    check(not lines.rest(), "bytes after the directory's end")
    check(len({entry.name for entry in entries}) == len(entries), "a name twice")
    for entry in entries:
        if entry.checksum is not None:
            entry.chunk = chunks.take(entry.n_chunk_bytes)
    check(not chunks.rest(), "bytes after the last chunk")
    return entries


def line(source, name, earlier):
    kind = source.uint(1)
    entry = Entry(name, kind & 15, kind >> 4)
    if kind == 0x20:
        entry.original = source.varint()
        check(entry.original in [i for i, e in enumerate(earlier) if e.method != 2], "tied to no earlier one")
        return entry
    entry.shape = tuple(source.varint() for _ in range(source.varint()))
    check(len(entry.shape) <= 64, "too many dimensions")
    entry.n_bytes = math.prod(entry.shape) * WIDTHS[entry.type]
    check(math.prod(n or 1 for n in entry.shape) * WIDTHS[entry.type] < 1 << 63, "a tensor of 2^63 bytes")
    entry.n_chunk_bytes = source.varint()
    if entry.n_chunk_bytes <= 64:
        entry.chunk = source.take(entry.n_chunk_bytes)
    else:
        entry.checksum = source.uint(4)
    check(entry.method != 2, "tied, and of a type")
    check(entry.method not in NOTES or not (entry.type or entry.shape), "a note with type or dimensions")
    return entry


TYPES = ["float32", "float16", "bfloat16", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]
TYPES += ["float8_e4m3fn", "float8_e5m2"]
WIDTHS = (4, 2, 2, 8, 1, 2, 4, 8, 1, 1, 1, 1, 1, 1, 1, 1)
LARGEST = ((2 - 2**-23) * 2.0**127, 65504.0, (2 - 2**-7) * 2.0**127, (2 - 2**-52) * 2.0**1023)


def exact(entry, source, _):
    raw = source.take(entry.n_bytes)
    check(TYPES[entry.type] != "bool" or max(raw, default=0) <= 1, "a bool above 1")
    return raw


def grid(entry, source, _):
    check(entry.type < len(LARGEST), "integers on a grid")
    if not entry.n_bytes:
        return b""
    q, step = on_grid(entry, source)
    return multiples(entry, [(number, step) for number in q])


def multiples(entry, pairs):
    """Integers times steps."""
    check(all(abs(q) * step <= LARGEST[entry.type] for q, step in pairs), "a value beyond the largest")
    return b"".join(rounded(q * step, TYPES[entry.type]) for q, step in pairs)


def on_grid(entry, source):
    """The integers, and the step."""
    check(entry.type < len(LARGEST), "integers on a grid")
    step = next_step(source)
    return indices(entry, source), step


def next_step(source):
    (step,) = struct.unpack("<f", bytes(2) + source.take(2))
    check(0 < step < math.inf, "a step")
    return step


def indices(entry, source):
    """The integers of a tensor."""
    return integers(source, Layout(math.prod(entry.shape), n_rows(entry), entry.shape[2:]))


def n_rows(entry):
    return entry.shape[0] if len(entry.shape) > 1 else 1


def codebook(entry, source, _):
    check(entry.type < len(LARGEST), "a codebook of integers")
    if not entry.n_bytes:
        return b""
    n, width = source.varint(), WIDTHS[entry.type]
    check(1 <= n <= 1 << 16, "the number of values")
    values = [source.take(width) for _ in range(n)]
    numbers = [wide(value, TYPES[entry.type]) for value in values]
    check(all(map(math.isfinite, numbers)), "a value that is not finite")
    check(all(a < b for a, b in itertools.pairwise(numbers)), "values in another order")
    origin = source.varint()
    check(origin < n, "the origin")
    found = [q + origin for q in indices(entry, source)]
    check(all(0 <= i < n for i in found), "an index")
    return b"".join(values[i] for i in found)


def rows(entry, source, _):
    check(entry.type < len(LARGEST), "integers on a grid")
    if not entry.n_bytes:
        return b""
    steps = [next_step(source) for _ in range(n_rows(entry))]
    q = indices(entry, source)
    return multiples(entry, [(number, steps[i * len(steps) // len(q)]) for i, number in enumerate(q)])


def rounded(x, kind):
    wide = struct.pack("<d" if kind == "float64" else "<f", x)
    if kind == "float16":
        return struct.pack("<e", *struct.unpack("<f", wide))
    bits = int.from_bytes(wide, "little")
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).to_bytes(2, "little") if kind == "bfloat16" else wide


def cut(_, source, entries):
    sets, seen = [], set()
    for _ in range(source.varint()):
        n = source.varint()
        bits = Bits(Bytes(source.take((n + 7) // 8)))
        kept = [i for i in range(n) if bits.bit()]
        bits.close()
        places = list(set_places(source))
        for i, axis in places:
            check(i < len(entries) and entries[i].method not in (2, *NOTES), "a place that is no tensor")
            check(entries[i].shape[axis : axis + 1] == (len(kept),), "a dimension")
        check(kept and places and not seen & set(places), "a set without bits or places, or a place twice")
        seen |= set(places)
        sets.append((n, kept, places))
    settings, left_out = source.names(), source.names()
    check(all(name[-1] != "." and value for name, value in settings.items()), "a setting")
    check(all(n <= 64 for n in left_out.values()), "a module that returns too much")
    return sets, settings, left_out


def set_places(source):
    before = (0, -1)
    for _ in range(source.varint()):
        step = source.varint()
        axis = source.varint() if step % 2 else 0
        place = (before[0] + step // 2, axis)
        check(axis or not step % 2, "axis 0 written long")
        check(place > before, "places in another order")
        yield place
        before = place


def planes(entry, source, _):
    return small_planes.planes(entry, source, WIDTHS[entry.type]) if entry.n_bytes else b""


def delta(entry, source, _):
    if not entry.n_bytes:
        return b""
    width, mode = WIDTHS[entry.type], source.uint(1)
    check(mode <= 1, "a mode")
    if mode == 0:
        return small_planes.difference(entry, source, width, entry.parent)
    q, step = on_grid(entry, source)
    old = [wide(entry.parent[i : i + width], TYPES[entry.type]) for i in range(0, entry.n_bytes, width)]
    new = [rounded(p + number * step, TYPES[entry.type]) for p, number in zip(old, q, strict=True)]
    check(all(math.isfinite(wide(x, TYPES[entry.type])) for x in new), "a sum that is not finite")
    return b"".join(new)


def wide(raw, kind):
    """A floating element as a Python float."""
    if kind == "bfloat16":
        return struct.unpack("<f", bytes(2) + raw)[0]
    return struct.unpack({"float64": "<d", "float32": "<f", "float16": "<e"}[kind], raw)[0]


def parent_digest(_, source, __):
    return source.take(32)


METHODS = {0: exact, 1: grid, 3: cut, 4: planes, 5: delta, 6: parent_digest, 7: codebook, 8: rows}
