"""A second reader of `.lac` files: plain Python, written from docs/format.md alone, slow, and no part of Laconic.

It proves that the page is a specification. `read` gives names, types, shapes and values, these as the bytes of
the decoded elements, so that floats compare bit by bit; whatever the page does not allow is `Refused`.

A chunk's method is one function of METHODS: (entry, its bytes, the entries before it) → what the chunk means.
"""

import math
import struct
import zlib
from dataclasses import dataclass


class Refused(Exception):  # noqa: N818
    """The page does not allow these bytes."""


def check(condition, complaint):
    if not condition:
        raise Refused(complaint)


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
    checksum: int = 0
    chunk: bytes = b""


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        check(n <= len(self.data) - self.at, "a length runs past the end")
        self.at += n
        return self.data[self.at - n : self.at]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def uint(self, n):
        return int.from_bytes(self.take(n), "little")

    def varint(self):
        value = 0
        for i in range(9):
            byte = self.uint(1)
            value |= (byte & 127) << 7 * i
            if byte < 128:
                check(byte or not i, "a varint is longer than it need be")
                return value
        raise Refused("a varint is longer than nine bytes")

    def name(self, previous):
        shared, n_more = self.varint(), self.varint()
        check(shared <= len(previous) and 1 <= shared + n_more <= 1024, "a name's length")
        name = previous[:shared] + self.take(n_more)
        check(name.decode(errors="replace").encode() == name, "a name is not UTF-8")
        return name

    def names(self):
        """Names, each with a varint."""
        found, previous = {}, b""
        for _ in range(self.varint()):
            previous = self.name(previous)
            check(previous.decode() not in found, "a name twice")
            found[previous.decode()] = self.varint()
        return found


class Bits:  # a section of them, which `close` ends at a whole byte
    def __init__(self, source):
        self.source, self.byte, self.left = source, 0, 0

    def bit(self):
        if not self.left:
            self.byte, self.left = self.source.uint(1), 8
        self.left -= 1
        return self.byte >> self.left & 1

    def number(self, n, value=0):
        for _ in range(n):
            value = value << 1 | self.bit()
        return value

    def run(self, of):
        n = 0
        while self.bit() == of:
            n += 1
        return n

    def close(self):
        check(self.byte & (1 << self.left) - 1 == 0, "padding is not zero")


def unzigzag(z):
    return -(z + 1) // 2 if z % 2 else z // 2


def read(data, wanted=None, most_bytes=None):
    """Name → (type, shape, values) for the tensors `wanted`, by default all."""
    entries = directory(data)
    holders = {e.name: e if e.original is None else entries[e.original] for e in entries if e.method != 3}
    found = {name: e for name, e in holders.items() if wanted is None or name in wanted}
    limit = (64 << 20) + 1000 * len(data) if most_bytes is None else most_bytes
    check(sum(entry.n_bytes for entry in found.values()) <= limit, "more bytes than the limit")
    values = {name: contents(entry, entries) for name, entry in found.items()}
    return {name: (TYPES[entry.type], entry.shape, values[name]) for name, entry in found.items()}


def plan(data):
    """The sets, settings and left-out modules of the file's plan, None if it has none."""
    entries = directory(data)
    return next((contents(entry, entries) for entry in entries if entry.method == 3), None)


def contents(entry, entries):
    check(zlib.crc32(entry.chunk) == entry.checksum, f"{entry.name}: checksum")
    check(entry.method in METHODS and entry.type < len(TYPES), f"{entry.name}: unknown method or type")
    source = Bytes(entry.chunk)
    values = METHODS[entry.method](entry, source, entries)
    check(not source.rest(), f"{entry.name}: bytes after the chunk's end")
    return values


def directory(data):
    source = Bytes(data)
    check(source.take(4) == b"\x89LAC" and source.uint(1) == 1, "magic or version")
    lines = Bytes(source.take(source.varint()))
    check(zlib.crc32(data[: source.at]) == source.uint(4), "the directory's checksum")
    entries, previous = [], b""
    for _ in range(lines.varint()):
        check(not entries or entries[-1].method != 3, "an entry after the plan")
        previous = lines.name(previous)
        entries.append(line(lines, previous.decode(), entries))
    check(not lines.rest(), "bytes after the directory's end")
    check(len({entry.name for entry in entries}) == len(entries), "a name twice")
    for entry in entries:
        entry.chunk = source.take(entry.n_chunk_bytes)
    check(not source.rest(), "bytes after the last chunk")
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
    entry.n_chunk_bytes, entry.checksum = source.varint(), source.uint(4)
    check(entry.method != 2, "tied, and of a type")
    check(entry.method != 3 or (kind == 0x30 and not entry.shape), "a plan with type or dimensions")
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
    (step,) = struct.unpack("<f", bytes(2) + source.take(2))
    check(0 < step < math.inf, "a step")
    q = integers(source, math.prod(entry.shape), entry.shape[0] if len(entry.shape) > 1 else 1)
    check(max(map(abs, q)) * step <= LARGEST[entry.type], "a value beyond the type's largest")
    return b"".join(rounded(number * step, TYPES[entry.type]) for number in q)


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
            check(i < len(entries) and entries[i].method not in (2, 3), "a place that is no tensor")
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


METHODS = {0: exact, 1: grid, 3: cut}


def integers(source, n, n_rows, nested=False):
    lanes, shape, orders = source.take(3)
    n_classes, precision, resolution = (lanes >> 4) + 1, shape & 15, 1 << (shape >> 4 & 3)
    check(lanes & 15 <= 8 <= precision and shape < 64 and (n_classes == 1 or not nested), "a stream's header")
    lo, width = unzigzag(source.varint()), source.varint() + 1
    check(width < 1 << precision and -(2**31) <= lo <= 2**31 - width, "a table's range")
    bits = Bits(source)
    tables = [table(bits, width, resolution, orders >> 5, precision) for _ in range(n_classes)]
    bits.close()
    check(not nested or not tables[0][-1], "row classes that may escape")
    classes = integers(source, n_rows, 1, nested=True) if n_classes > 1 else [0] * n_rows
    check(set(classes) <= set(range(n_classes)), "a row's class")
    of_each = (c for c in classes for _ in range(n // n_rows))
    symbols = list(decoded(source, 1 << (lanes & 15), tables, of_each))
    bits = Bits(source)
    q = [lo + s if s < width else escape(bits, orders & 31, lo, width) for s in symbols]
    bits.close()
    return q


def table(bits, width, resolution, order, precision):
    """The frequencies of `width` integers and of the escape."""
    weights, level = [], 2 * resolution
    for _ in range(width + 1):
        level += unzigzag(bits.number(order, bits.run(1)))
        check(0 <= level <= 16 * resolution + 1, "a level")
        octave, part = divmod(level - 1, resolution)
        weights.append(OCTAVE[part * 8 // resolution] << octave if level else 0)
    total, whole = sum(weights), 1 << precision
    check(total, "an empty table")
    frequencies = [max(1, (w * whole + total // 2) // total) if w else 0 for w in weights]
    largest = frequencies.index(max(frequencies))
    frequencies[largest] += whole - sum(frequencies)
    check(frequencies[largest] > 0, "an overfull table")
    return frequencies


OCTAVE = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)


def decoded(source, n_lanes, tables, classes):
    """The symbols, one for each of `classes`, which says whose table it is of."""
    n_words = source.varint()
    states = [source.uint(4) for _ in range(n_lanes)]
    words = Bytes(source.take(2 * n_words))
    check(min(states) >= 1 << 16, "a lane's state")
    slots = [[(s, f, bias) for s, f in enumerate(table) for bias in range(f)] for table in tables]
    for i, c in enumerate(classes):
        rest, slot = divmod(states[i % n_lanes], len(slots[c]))
        symbol, frequency, bias = slots[c][slot]
        x = frequency * rest + bias
        states[i % n_lanes] = x if x >= 1 << 16 else x << 16 | words.uint(2)
        yield symbol
    check(set(states) == {1 << 16} and not words.rest(), "the words' end")


def escape(bits, order, lo, width):
    n_zeros = bits.run(0)
    check(n_zeros <= 34 - order, "an escape too long")
    u = bits.number(n_zeros + order, 1) - (1 << order)
    value = lo - 1 - (u - 1) // 2 if u % 2 else lo + width + u // 2
    check(-(2**31) <= value < 2**31, "an integer of more than 32 bits")
    return value
