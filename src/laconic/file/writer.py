"""Writing a file: chunks go to a spool as they come, and into or behind their directory at the end.

The spool is a journal: a digest of what is being written, then for each tensor its name and its line of the
directory, their checksum, and its chunk, if the line does not hold it. What a killed process left is whole up
to some record; a spool opened again under the same digest drops the rest and goes on.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from laconic.atomic import atomic
from laconic.coding.bits import Cursor, Pieces, varint
from laconic.errors import FormatError, MismatchError, UnsupportedError
from laconic.file import plans
from laconic.file.container import (
    MAGIC,
    MOST_INLINE_BYTES,
    N_CHECKSUM_BYTES,
    NOTE_NAMES,
    VERSION,
    Entry,
    line,
    read_entry,
)
from laconic.file.names import read_name, write_name
from laconic.forms import DTYPES, Form, Method
from laconic.surgery.plan import Plan

JOURNAL = b"\x89LACpart"
N_COPY_BYTES = 1 << 20


class Spool:
    """Tensors on their way into a file.

    Attributes:
        stored: what is finished, in order.
    """

    def __init__(self, file: BinaryIO, digest: bytes, place: str) -> None:
        self._file = file
        self._place = place
        self.stored: list[Entry] = []
        if file.seek(0, os.SEEK_END):
            self._recover(JOURNAL + digest)
        else:
            file.write(JOURNAL + digest)

    def append(self, form: Form, pieces: Pieces) -> None:
        """Add a tensor, and hand it to the operating system."""
        entry = _entry(form, pieces)
        head = write_name(form.name.encode(), b"") + line(entry)
        self._file.write(varint(len(head)) + head + zlib.crc32(head).to_bytes(N_CHECKSUM_BYTES, "little"))
        offset = self._file.tell()
        if entry.chunk is None:
            self._file.writelines(pieces)
        self._file.flush()
        self.stored.append(replace(entry, offset=offset))

    def copy_chunks(self, target: BinaryIO) -> None:
        """Write all chunks that follow the directory to `target`, in order."""
        for entry in self.stored:
            for block in self._blocks(entry):
                target.write(block)

    def _blocks(self, entry: Entry) -> Generator[bytes]:
        self._file.seek(entry.offset)
        for begin in range(0, entry.n_bytes_behind, N_COPY_BYTES):
            yield self._file.read(min(N_COPY_BYTES, entry.n_bytes_behind - begin))

    def _recover(self, head: bytes) -> None:
        self._file.seek(0)
        if self._file.read(len(head)) != head:
            raise MismatchError(
                f"{self._place}: expected what the same input and options left, found another's; "
                "remove it to start anew"
            )
        end = len(head)
        while entry := self._next():
            checksum = 0
            for block in self._blocks(entry):
                checksum = zlib.crc32(block, checksum)
            if checksum != entry.checksum:
                break
            self.stored.append(entry)
            end = entry.offset + entry.n_bytes_behind
        self._file.seek(end)
        self._file.truncate()

    def _next(self) -> Entry | None:
        """The record at the file's position, if it is whole."""
        begin = self._file.tell()
        try:
            source = Cursor(self._file.read(9), self._place)
            n_head = source.varint()
            self._file.seek(begin + source.at)
            head = self._file.read(n_head)
            checksum = int.from_bytes(self._file.read(N_CHECKSUM_BYTES), "little")
            if len(head) != n_head or zlib.crc32(head) != checksum:
                return None
            inner = Cursor(head, self._place)
            name = read_name(inner, b"").decode()
            return read_entry(inner, name, (0, self._file.tell()), [])
        except FormatError:
            return None


def _entry(form: Form, pieces: Pieces) -> Entry:
    """The entry of a chunk, whose place is not known yet."""
    n_bytes = sum(map(len, pieces))
    if n_bytes <= MOST_INLINE_BYTES:
        return Entry(form, 0, n_bytes, 0, None, 0, chunk=b"".join(pieces))
    checksum = 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return Entry(form, 0, n_bytes, checksum, None, 0)


@contextmanager
def spooled(path: str | os.PathLike[str], digest: bytes | None) -> Generator[Spool]:
    """A spool beside `path`: under a digest one that outlives an interruption, else one that does not.

    Raises:
        MismatchError: there is one of another digest.
    """
    target = Path(path)
    if digest is None:
        with tempfile.TemporaryFile(dir=target.parent) as file:
            yield Spool(file, bytes(32), os.fspath(path))
        return
    part = Path(f"{os.fspath(path)}.part")
    with part.open("r+b" if part.exists() else "w+b") as file:
        spool = Spool(file, digest, os.fspath(part))
        try:
            yield spool
        except BaseException:
            if not spool.stored:
                part.unlink()
            raise
    part.unlink()


def assemble(
    path: str | os.PathLike[str],
    spool: Spool,
    tied: Mapping[str, str],
    notes: Mapping[Method, bytes],
) -> int:
    """Write the spool's tensors, `tied` (name → earlier name) and notes, atomically; the file's length."""
    names: dict[str, int] = {}
    directory, previous = bytearray(), b""
    for entry in spool.stored:
        names[entry.form.name] = len(names)
        name = entry.form.name.encode()
        directory += write_name(name, previous) + line(entry)
        previous = name
    for alias, original in tied.items():
        name = alias.encode()
        directory += write_name(name, previous) + bytes([Method.TIED << 4]) + varint(names[original])
        previous = name
    for method, chunk in notes.items():
        note = NOTE_NAMES[method]
        if note in names or note in tied:
            what = method.name.lower()
            raise UnsupportedError(f"{note}: a file with a {what} holds no tensor of this name")
        entry = _entry(Form(note, DTYPES[0], (), method), [chunk])
        directory += write_name(note.encode(), previous) + line(entry)
        previous = note.encode()
    count = varint(len(names) + len(tied) + len(notes))
    head = MAGIC + bytes([VERSION]) + varint(len(count) + len(directory)) + count + directory
    with atomic(path) as file:
        file.write(head + zlib.crc32(head).to_bytes(N_CHECKSUM_BYTES, "little"))
        spool.copy_chunks(file)
        file.writelines(chunk for chunk in notes.values() if len(chunk) > MOST_INLINE_BYTES)
        return file.tell()


def notes(plan: Plan | None, parent: str | None, spool: Spool) -> dict[Method, bytes]:
    """The notes of a file: its parent's digest, and a plan that cuts something."""
    found = {Method.PARENT: bytes.fromhex(parent)} if parent else {}
    if plan:
        found[Method.PLAN] = plans.encode(plan, [entry.form for entry in spool.stored])
    return found
