"""The container: magic, version, chunks, directory, checksums. `docs/format.md` is its specification.

A file is checked before it is believed: lengths against the bytes that are there, checksums before contents, and the
memory that decoding needs against a limit before anything is allocated.
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import override

from laconic.codec.spec import DTYPES, Method, TensorSpec
from laconic.coding.bitio import MAX_VARINT_BYTES, Buffer, Cursor, varint
from laconic.core.jit import kernel
from laconic.core.threads import Map, large_empty
from laconic.errors import FormatError, LimitError, UnsupportedError
from laconic.file.sections import read_name, read_plan
from laconic.surgery.plan import Plan

MAGIC = b"\x89LAC"
VERSION = 1
HEAD = MAGIC + bytes([VERSION])
N_CHECKSUM_BYTES = 4
MAX_INLINE_BYTES = 64  # of a chunk that stands in the directory; longer ones lie before it
METHODS = tuple(method for method in Method if method is not Method.TIED)  # with a chunk
NOTES = {Method.PARENT: "@parent", Method.PLAN: "@plan"}  # entries that are no tensors, in this order, after all others
N_DIGEST_BYTES = 32
MAX_DIMENSIONS = 64
FREE_BYTES = 64 << 20  # any file may decode to this much …
EXPANSION = 1000  # … and to this many times its own length
REFLECTED = 0xEDB88320  # the CRC's polynomial, the coefficient of x³¹ lowest
CRC_BYTES = 1 << 20  # of a part that a thread sums up


def crc32(pieces: Iterable[Buffer], run: Map = map) -> int:
    """The CRC-32 of all pieces together, by the threads of `run`.

    If B has n bits, crc(AB) = crc(A)·xⁿ + crc(B) in GF(2)[x] modulo the CRC's polynomial, so each part can be summed up
    on its own. `docs/format.md`, "Conventions", says which CRC it is.
    """
    parts = [piece[at : at + CRC_BYTES] for piece in map(memoryview, pieces) for at in range(0, len(piece), CRC_BYTES)]
    total = 0
    for part, checksum in zip(parts, run(zlib.crc32, parts), strict=True):
        total = _times(total, _power(8 * len(part))) ^ checksum
    return total


@kernel
def _times(a: int, b: int) -> int:
    """The product of two polynomials, modulo the CRC's."""
    product = 0
    for i in range(31, -1, -1):  # the coefficient of x⁰ is the highest bit
        if a >> i & 1:
            product ^= b
        b = b >> 1 ^ (REFLECTED if b & 1 else 0)
    return product


@kernel
def _power(n: int) -> int:
    """xⁿ, modulo the CRC's polynomial."""
    power, square = 1 << 31, 1 << 30
    while n:
        if n & 1:
            power = _times(power, square)
        square = _times(square, square)
        n >>= 1
    return power


@dataclass(frozen=True)
class Entry:
    """A tensor's line in the directory."""

    spec: TensorSpec  # for a tied tensor with the type and shape of the one it shares
    offset: int  # of the chunk in the file, if it lies before the directory
    n_chunk_bytes: int
    checksum: int  # the chunk's CRC-32, if it lies before the directory
    tied_to: str | None  # the name of the entry that holds the tensor, if it is another one
    n_entry_bytes: int  # length of this line, without its chunk
    unknown: str | None = None  # why this version cannot decode the tensor, if it cannot
    chunk: bytes | None = None  # the chunk itself, if the directory holds it

    @property
    def n_bytes(self) -> int:
        """This entry's bytes in the file."""
        return self.n_entry_bytes + self.n_chunk_bytes

    @property
    def n_bytes_before(self) -> int:
        """This entry's bytes before the directory."""
        return self.n_chunk_bytes if self.chunk is None else 0


def line(entry: Entry) -> bytes:
    """The bytes after the name of an untied entry in the directory."""
    spec = entry.spec
    numbers = map(varint, (len(spec.shape), *spec.shape, entry.n_chunk_bytes))
    kind = bytes([DTYPES.index(spec.dtype) | spec.method << 4])
    checksum = entry.checksum.to_bytes(N_CHECKSUM_BYTES, "little")
    return kind + b"".join(numbers) + (checksum if entry.chunk is None else entry.chunk)


class Reader(AbstractContextManager["Reader"]):
    """An open `.lac` file: its directory, and any tensor's chunk.

    Attributes:
        entries: the tensors of the directory, by name, in the file's order.
        n_bytes: the file's length.
        n_header_bytes: bytes of no entry: magic, version, and the directory's length, count and checksum.
        n_plan_bytes: bytes of the plan, if there is one: its line of the directory and its chunk.
        n_parent_bytes: bytes of the parent's digest, likewise.
        parent: the digest, in hex, of the state that some tensors are differences from, if any are.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lock = threading.Lock()
        if Path(path).is_fifo():  # opening it would wait for what writes into it
            raise FormatError(f"{os.fspath(path)}: expected a .lac file, found a pipe")
        self._file = Path(path).open("rb")  # noqa: SIM115 – closed by `close`
        try:
            self.path = os.fspath(path)
            self.n_bytes = os.fstat(self._file.fileno()).st_size
            entries = self._read_directory()
            self.n_header_bytes = self.n_bytes - sum(e.n_bytes for e in entries.values())
            self._notes = {e.spec.method: e for e in entries.values() if e.spec.method in NOTES}
            n_note_bytes = (self._notes[note].n_bytes if note in self._notes else 0 for note in NOTES)
            self.n_parent_bytes, self.n_plan_bytes = n_note_bytes
            self.entries = {n: e for n, e in entries.items() if e.spec.method not in NOTES}
            self.parent = self._read_parent()
        except BaseException:
            self._file.close()
            raise

    def chunk(self, entry: Entry, run: Map = map) -> bytes | memoryview:
        """The bytes of an entry's chunk, checked by the threads of `run`."""
        if entry.unknown:
            raise UnsupportedError(f"{self.path}: {entry.spec.name}: {entry.unknown}")
        if entry.chunk is not None:
            return entry.chunk  # the directory's checksum covers it
        data = large_empty(entry.n_chunk_bytes, np.uint8).data
        with self._lock:
            self._file.seek(entry.offset)
            data = data[: self._file.readinto(data)]
        if (found := crc32([data], run)) != entry.checksum:
            wrong = f"expected checksum {entry.checksum:08x}, found {found:08x}: the file is damaged"
            raise FormatError(f"{self.path}: {entry.spec.name}: {wrong}")
        return data

    @property
    def plan(self) -> Plan | None:
        """How the dense model was cut to the file's tensors; FormatError if a plan is damaged or does not fit them."""
        if Method.PLAN not in self._notes:
            return None
        specs = [None if entry.tied_to else entry.spec for entry in self.entries.values()]
        return read_plan(Cursor(self.chunk(self._notes[Method.PLAN]), f"{self.path}: plan"), specs)

    def holder(self, name: str) -> Entry:
        """The entry that holds a tensor: its own, or the one to which it is tied."""
        return self.entries[self.entries[name].tied_to or name]

    def check_limit(self, names: Iterable[str], limit: int | None = None) -> None:
        """LimitError if decoding `names` takes more than `limit` (by default: see FREE_BYTES).

        Differences do not count, since the caller has a parent of their size.
        """
        limit = FREE_BYTES + EXPANSION * self.n_bytes if limit is None else limit
        specs = [self.entries[name].spec for name in names]
        needed = sum(spec.n_bytes for spec in specs if spec.method is not Method.DELTA)
        if needed > limit:
            above = f"{needed:,}, above the limit of {limit:,}; raise the limit if you trust the file"
            raise LimitError(f"{self.path}: {self.n_bytes:,} bytes would decode to {above}")

    def _read_parent(self) -> str | None:
        note = self._notes.get(Method.PARENT)
        if note is None:
            if name := next((n for n, entry in self.entries.items() if entry.spec.method is Method.DELTA), None):
                raise FormatError(f"{self.path}: {name}: expected a parent's digest beside a difference")
            return None
        if note.n_chunk_bytes != N_DIGEST_BYTES:
            raise FormatError(f"{self.path}: parent: expected {N_DIGEST_BYTES} bytes, found {note.n_chunk_bytes}")
        return self.chunk(note).hex()

    def _read_directory(self) -> dict[str, Entry]:
        head = self._file.read(len(MAGIC) + 1)
        if head[: len(MAGIC)] != MAGIC:
            raise FormatError(f"{self.path}: expected a .lac file, found other leading bytes")
        if head[len(MAGIC) :] != bytes([VERSION]):
            found = f"version {head[-1]}" if len(head) > len(MAGIC) else "its end"
            raise UnsupportedError(f"{self.path}: expected version {VERSION}, found {found}")
        self._file.seek(max(len(head), self.n_bytes - N_CHECKSUM_BYTES - MAX_VARINT_BYTES))
        tail = self._file.read()
        length = Cursor(tail[:-N_CHECKSUM_BYTES][::-1], f"{self.path}: the directory's length, at its end")
        n_directory = length.varint()
        begin = self.n_bytes - N_CHECKSUM_BYTES - length.at - n_directory
        if begin < len(head):
            found = f"a directory of {n_directory:,} bytes in a file of {self.n_bytes:,}"
            raise FormatError(f"{self.path}: {found}: the file is damaged or cut short")
        self._file.seek(begin)
        checked = self._file.read(n_directory + length.at)
        checksum = int.from_bytes(tail[-N_CHECKSUM_BYTES:], "little")
        if zlib.crc32(head + checked) != checksum:
            raise FormatError(f"{self.path}: the directory's checksum does not match: the file is damaged or cut short")
        return _entries(Cursor(checked[:n_directory], f"{self.path}: directory"), len(head), begin)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @override
    def __exit__(self, *_: object) -> None:
        self.close()


def _entries(source: Cursor, offset: int, end: int) -> dict[str, Entry]:
    """The lines of a directory whose chunks lie from `offset` to `end`."""
    entries: dict[str, Entry] = {}
    by_index: list[Entry] = []
    previous = b""
    for _ in range(source.varint()):
        last = by_index[-1].spec.method if by_index else None
        begin = source.at
        previous = read_name(source, previous)
        name = previous.decode()
        source.expect(name not in entries, "names that differ", f"{name!r} twice")
        entry = read_entry(source, name, (begin, offset), by_index)
        in_order = last not in NOTES or (last is Method.PARENT and entry.spec.method is Method.PLAN)
        source.expect(in_order, "the plan as the last entry, after any parent", f"{name!r} after it")
        offset += entry.n_bytes_before
        by_index.append(entry)
        entries[name] = entry
    source.end("the directory's end")
    if offset != end:
        raise FormatError(f"{source.place}: describes {offset:,} bytes, the file has {end:,} before it")
    return entries


def read_entry(source: Cursor, name: str, at: tuple[int, int], earlier: list[Entry]) -> Entry:
    """The line after a name; `at` is where the line began, and where its chunk begins."""
    begin, offset = at
    spec = source.byte()
    if spec == Method.TIED << 4:
        index = source.varint()
        untied = index < len(earlier) and not earlier[index].tied_to
        source.expect(untied, "an earlier entry that is not tied", f"entry {index}")
        original = earlier[index]
        shared = TensorSpec(name, original.spec.dtype, original.spec.shape, Method.TIED)
        return Entry(shared, offset, 0, 0, original.spec.name, source.at - begin, original.unknown)
    code, method = spec & 15, spec >> 4
    source.expect(method != Method.TIED, "a tied entry without a type", f"type {code}")
    n_dimensions = source.varint()
    source.expect(n_dimensions <= MAX_DIMENSIONS, f"at most {MAX_DIMENSIONS} dimensions", n_dimensions)
    shape = tuple(source.varint() for _ in range(n_dimensions))
    n_chunk_bytes = source.varint()
    n_entry_bytes, chunk, checksum = source.at - begin, None, 0
    if n_chunk_bytes <= MAX_INLINE_BYTES:
        chunk = bytes(source.take(n_chunk_bytes))
    else:
        n_entry_bytes += N_CHECKSUM_BYTES
        checksum = int.from_bytes(source.take(N_CHECKSUM_BYTES), "little")
    plain = method not in NOTES or not (code or shape)
    source.expect(plain, "a note without type and dimensions", f"type {code}, shape {shape}")
    unknown = None
    if code >= len(DTYPES) or method not in METHODS:
        unknown = f"type {code}, method {method}: not known to this version"
        code, method = 8, Method.EXACT
    known = TensorSpec(name, DTYPES[code], shape, Method(method))
    in_range = math.prod(max(n, 1) for n in shape) * known.dtype.itemsize < 1 << 63
    source.expect(in_range, "fewer than 2^63 bytes", f"shape {shape}")
    return Entry(known, offset, n_chunk_bytes, checksum, None, n_entry_bytes, unknown, chunk)
