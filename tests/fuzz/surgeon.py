"""A file apart and together again: mutations that lengths and checksums do not betray.

Almost every change to a file breaks a checksum, which the reader finds first. So a mutant is made of parts:
the lines of the directory and their chunks are changed one at a time, and lengths and checksums follow.
"""

import zlib

from laconic.coding.bitio import Cursor, varint
from laconic.file import container


def divided(data):
    """The chunks before the directory, and the directory."""
    length = Cursor(data[:-4][::-1], "file")
    begin = len(data) - 4 - length.varint() - length.at
    return data[5:begin], data[begin : -4 - length.at]


def dissect(data):
    """Pairs of a directory's line, up to its chunk's length, and the chunk; None if tied."""
    chunks, directory = divided(data)
    parts, at = [], len(varint(directory[0]))
    for entry in container._entries(Cursor(directory, "directory"), 0, len(chunks)).values():
        line = directory[at : at + entry.n_entry_bytes]
        at += entry.n_entry_bytes
        if entry.tied_to:
            parts.append((line, None))
        elif entry.chunk is not None:
            parts.append((line[:-1], entry.chunk))
            at += len(entry.chunk)
        else:
            chunk = chunks[entry.offset : entry.offset + entry.n_chunk_bytes]
            parts.append((line[: -4 - len(varint(len(chunk)))], chunk))
    return parts


def assemble(parts):
    directory, chunks = varint(len(parts)), b""
    for line, chunk in parts:
        directory += line
        if chunk is not None:
            inside, before = placed(chunk)
            directory, chunks = directory + inside, chunks + before
    return seal(directory, chunks)


def placed(chunk):
    """What the directory has of a chunk, and what lies before it."""
    n_bytes = varint(len(chunk))
    if len(chunk) <= container.MAX_INLINE_BYTES:
        return n_bytes + chunk, b""
    return n_bytes + zlib.crc32(chunk).to_bytes(4, "little"), chunk


def seal(directory, chunks=b"", version=container.VERSION):
    """A file with any directory."""
    head, end = container.MAGIC + bytes([version]), directory + varint(len(directory))[::-1]
    return head + chunks + end + zlib.crc32(head + end).to_bytes(4, "little")


def mutated(data, change, rng):
    """The file `data` with one part changed by `change` (bytes → bytes) and its checksums right."""
    try:
        parts = dissect(data)
    except Exception:  # no file any more: whatever it is, it may become one again
        return change(data)
    if not parts or rng.random() < 0.02:
        return change(data)
    if rng.random() < 0.1:  # an entry twice, or none of it
        parts[rng.randrange(len(parts) + 1) :] = parts[rng.randrange(len(parts)) :]
        return assemble(parts[:100])
    at = rng.randrange(len(parts))
    line, chunk = parts[at]
    if chunk and rng.random() < 0.75:
        chunk = change(chunk)
    else:
        line = change(line)
    parts[at] = (line, chunk)
    return assemble(parts)
