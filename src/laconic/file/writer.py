"""Writing a file: chunks as they come, their directory behind them.

A draft that outlives interruptions has a journal beside it: a digest of what is being written, then for each tensor its
name and its line of the directory, and their checksum. What a killed process left is whole up to some record; a draft
opened again under the same digest drops the rest and resumes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from laconic.codec.spec import DTYPES, Method, TensorSpec
from laconic.coding.bitio import Cursor, Pieces, varint
from laconic.core.atomic import atomic, begin_to_store, check_output, named
from laconic.errors import FormatError, MismatchError, UnsupportedError
from laconic.file.container import HEAD, MAX_INLINE_BYTES, N_CHECKSUM_BYTES, NOTES, Entry, crc32, line, read_entry
from laconic.file.sections import read_name, write_name, write_plan
from laconic.surgery.plan import Plan

JOURNAL = b"\x89LACpart"
N_COPY_BYTES = 1 << 20


class Draft:
    """A file in the making; `stored` lists the tensors that are in it, in order."""

    def __init__(self, file: BinaryIO, journal: BinaryIO | None = None) -> None:
        self._file = file
        self._journal = journal
        self.stored: list[Entry] = []
        if file.tell() == 0:
            file.write(HEAD)

    def append(self, spec: TensorSpec, pieces: Pieces, checksum: int | None = None) -> None:
        """Add a tensor, and hand it to the operating system; `checksum` is that of the pieces, if it is known."""
        entry = _entry(spec, pieces, self._file.tell(), checksum)
        if entry.chunk is None:
            self._file.writelines(pieces)
            begin_to_store(self._file, entry.n_chunk_bytes)
        if self._journal:
            self._file.flush()
            self._journal.write(_record(entry))
            self._journal.flush()
        self.stored.append(entry)

    def finish(self, tied: Mapping[str, str], plan: Plan | None = None, parent: str | None = None) -> int:
        """Add `tied` (name → earlier name), the parent's digest, a plan that cuts something, and the directory.

        Returns the file's length.
        """
        notes = {Method.PARENT: bytes.fromhex(parent)} if parent else {}
        if plan:
            notes[Method.PLAN] = write_plan(plan, [entry.spec for entry in self.stored])
        index = {entry.spec.name: i for i, entry in enumerate(self.stored)}
        lines = [(entry.spec.name, line(entry)) for entry in self.stored]
        lines += [(name, bytes([Method.TIED << 4]) + varint(index[first])) for name, first in tied.items()]
        taken = {name for name, _ in lines}
        for method, chunk in notes.items():
            note = NOTES[method]
            if note in taken:
                raise UnsupportedError(f"{note}: a file with a {method.name.lower()} holds no tensor of this name")
            entry = _entry(TensorSpec(note, DTYPES[0], (), method), [chunk], self._file.tell())
            if entry.chunk is None:
                self._file.write(chunk)
            lines.append((note, line(entry)))
        names = [b"", *(name.encode() for name, _ in lines)]
        named = (write_name(name, before) for before, name in pairwise(names))
        body = varint(len(lines)) + b"".join(n + rest for n, (_, rest) in zip(named, lines, strict=True))
        end = body + varint(len(body))[::-1]  # which is read from the file's end
        self._file.write(end + zlib.crc32(HEAD + end).to_bytes(N_CHECKSUM_BYTES, "little"))
        return self._file.tell()


def _entry(spec: TensorSpec, pieces: Pieces, offset: int, checksum: int | None = None) -> Entry:
    n_bytes = sum(map(len, pieces))
    if n_bytes <= MAX_INLINE_BYTES:
        return Entry(spec, offset, n_bytes, 0, None, 0, chunk=b"".join(pieces))
    return Entry(spec, offset, n_bytes, crc32(pieces) if checksum is None else checksum, None, 0)


def _record(entry: Entry) -> bytes:
    head = write_name(entry.spec.name.encode(), b"") + line(entry)
    return varint(len(head)) + head + zlib.crc32(head).to_bytes(N_CHECKSUM_BYTES, "little")


@contextmanager
def drafted(path: str | os.PathLike[str], digest: bytes | None) -> Generator[Draft]:
    """A draft, to be finished in the block, which takes the name `path` once the block ends well.

    Under a digest it is `path` with ``.part`` until then, has its journal in ``.part.journal``, and outlives an
    interruption; without, an interruption leaves nothing.

    Raises:
        MismatchError: a draft of another digest exists.
        OutputError: one of these names is that of a device, a pipe, a link or a folder.
    """
    if digest is None:
        with atomic(path) as file:
            yield Draft(file)
        return
    part = Path(f"{os.fspath(path)}.part")
    beside = part.with_name(f"{part.name}.journal")
    for file in (path, part, beside):
        check_output(file)
    with named(path):
        with _opened(part, beside, digest) as (file, journal, stored):
            draft = Draft(file, journal)
            draft.stored += stored
            try:
                yield draft
            except BaseException:
                if not draft.stored:
                    part.unlink()
                    beside.unlink()
                raise
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        beside.unlink()


@contextmanager
def _opened(part: Path, beside: Path, digest: bytes) -> Generator[tuple[BinaryIO, BinaryIO, list[Entry]]]:
    """A draft and its journal, each at the end of its whole part, and the tensors in them."""
    head = JOURNAL + digest
    if part.exists() and not (beside.exists() and beside.read_bytes().startswith(head)):
        expected = "expected what the same input and options left"
        raise MismatchError(f"{part}: {expected}, found another's; remove it to start anew")
    if not part.exists():
        beside.write_bytes(head)
        part.write_bytes(b"")
    with part.open("r+b") as file, beside.open("r+b") as journal:
        stored, end = _recovered(file, Cursor(journal.read()[len(head) :], os.fspath(beside)))
        journal.seek(len(head) + end)
        journal.truncate()
        file.seek(stored[-1].offset + stored[-1].n_bytes_before if stored else 0)
        file.truncate()
        yield file, journal, stored


def _recovered(file: BinaryIO, records: Cursor) -> tuple[list[Entry], int]:
    """The tensors whose records and chunks are whole, and the end of their records."""
    stored: list[Entry] = []
    offset, end = len(HEAD), 0
    begun = file.read(len(HEAD)) == HEAD
    while begun and len(records):
        try:
            head = records.take(records.varint())
            if zlib.crc32(head) != int.from_bytes(records.take(N_CHECKSUM_BYTES), "little"):
                break
            inner = Cursor(head, records.place)
            entry = read_entry(inner, read_name(inner, b"").decode(), (0, offset), [])
        except FormatError:
            break
        file.seek(offset)
        checksum = 0
        for begin in range(0, entry.n_bytes_before, N_COPY_BYTES):
            checksum = zlib.crc32(file.read(min(N_COPY_BYTES, entry.n_bytes_before - begin)), checksum)
        if checksum != entry.checksum:
            break
        stored.append(entry)
        offset, end = offset + entry.n_bytes_before, records.at
    return stored, end
