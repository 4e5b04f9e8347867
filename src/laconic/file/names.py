"""Names in a file: each repeats as many leading bytes of the one before as it can."""

from __future__ import annotations

import itertools

from laconic.coding.bits import Cursor, varint
from laconic.errors import UnsupportedError

LONGEST_NAME = 1024


def write_name(name: bytes, previous: bytes) -> bytes:
    """`name` after `previous`."""
    if not 0 < len(name) <= LONGEST_NAME:
        raise UnsupportedError(f"name of {len(name)} bytes: a file's are 1 to {LONGEST_NAME}")
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(name, previous, strict=False))
    shared = len(list(same))
    return varint(shared) + varint(len(name) - shared) + name[shared:]


def read_name(source: Cursor, previous: bytes) -> bytes:
    """The next name, which is UTF-8; FormatError if it is not."""
    shared, n_more = source.varint(), source.varint()
    if shared > len(previous) or not 0 < shared + n_more <= LONGEST_NAME:
        raise source.error(f"a name of 1 to {LONGEST_NAME} bytes", f"{shared} + {n_more}")
    name = previous[:shared] + bytes(source.take(n_more))
    try:
        name.decode()
    except UnicodeDecodeError as error:
        raise source.error("a name in UTF-8", repr(name)) from error
    return name
