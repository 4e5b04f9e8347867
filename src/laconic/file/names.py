"""Names in a file: each repeats leading bytes of the one before, and may end as parameters' names do."""

from __future__ import annotations

import itertools

from laconic.coding.bitio import Cursor, varint
from laconic.errors import UnsupportedError

MAX_NAME_BYTES = 1024
# By their numbers, which `docs/format.md` fixes.
ENDINGS = (
    *(b"", b".weight", b".bias", b".running_mean", b".running_var", b".num_batches_tracked"),
    *(b"weight", b"bias", b"conv1.weight", b"conv2.weight", b"bn1.weight", b"bn2.weight"),
    *(b"norm.weight", b"LayerNorm.weight", b"dense.weight", b"_proj.weight"),
)


def write_name(name: bytes, previous: bytes) -> bytes:
    """`name` after `previous`."""
    if not 0 < len(name) <= MAX_NAME_BYTES:
        raise UnsupportedError(f"name of {len(name)} bytes: a file's are 1 to {MAX_NAME_BYTES}")
    # No other choice is shorter: what a longer ending has in common with `previous` need not be shared.
    ending = max((e for e in ENDINGS if name.endswith(e)), key=len)
    rest = name.removesuffix(ending)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(rest, previous, strict=False))
    shared = len(list(same))
    kind = len(ENDINGS) * (len(rest) - shared) + ENDINGS.index(ending)
    return varint(shared) + varint(kind) + rest[shared:]


def read_name(source: Cursor, previous: bytes) -> bytes:
    """The next name, which is UTF-8; FormatError if it is not."""
    shared, (n_more, number) = source.varint(), divmod(source.varint(), len(ENDINGS))
    ending = ENDINGS[number]
    if shared > len(previous) or not 0 < shared + n_more + len(ending) <= MAX_NAME_BYTES:
        raise source.error(f"a name of 1 to {MAX_NAME_BYTES} bytes", f"{shared} + {n_more} + {len(ending)}")
    name = previous[:shared] + bytes(source.take(n_more)) + ending
    try:
        name.decode()
    except UnicodeDecodeError as error:
        raise source.error("a name in UTF-8", repr(name)) from error
    return name
