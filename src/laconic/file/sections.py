"""Names and plans in a file; `docs/format.md`, "Directory" and "Plan", is the specification.

Each name repeats leading bytes of the one before, and may end as parameters' names do. In a plan, tensors that lose the
same channels share one bitmap, and are named by their place in the directory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from laconic.codec.spec import TensorSpec
from laconic.coding.bitio import Cursor, varint
from laconic.errors import MismatchError, UnsupportedError
from laconic.surgery.plan import Plan

MAX_TUPLE_LENGTH = 64  # of what a bypassed block returns
MAX_NAME_BYTES = 1024
N_SHOWN = 40  # characters of a longer name in a message
# By their numbers, which `docs/format.md` fixes.
ENDINGS = (
    *(b"", b".weight", b".bias", b".running_mean", b".running_var", b".num_batches_tracked"),
    *(b"weight", b"bias", b"conv1.weight", b"conv2.weight", b"bn1.weight", b"bn2.weight"),
    *(b"norm.weight", b"LayerNorm.weight", b"dense.weight", b"_proj.weight"),
)


def check_name(name: str) -> None:
    """Raise UnsupportedError if a file cannot hold a tensor of this name."""
    try:
        n_bytes = len(name.encode())
    except UnicodeEncodeError as error:
        raise UnsupportedError(f"{name!r}: expected a name that UTF-8 can write, found {error.reason}") from None
    if not 0 < n_bytes <= MAX_NAME_BYTES:
        start = repr(name if len(name) <= N_SHOWN else f"{name[:N_SHOWN]}…")
        raise UnsupportedError(f"{start}: name of {n_bytes} bytes: a file's are 1 to {MAX_NAME_BYTES}")


def write_name(name: bytes, previous: bytes) -> bytes:
    """`name`, which `check_name` takes, after `previous`."""
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
    fits = shared <= len(previous) and 0 < shared + n_more + len(ending) <= MAX_NAME_BYTES
    source.expect(fits, f"a name of 1 to {MAX_NAME_BYTES} bytes", f"{shared} + {n_more} + {len(ending)}")
    name = previous[:shared] + bytes(source.take(n_more)) + ending
    try:
        name.decode()
    except UnicodeDecodeError as error:
        raise source.error("a name in UTF-8", repr(name)) from error
    return name


def write_plan(plan: Plan, specs: Sequence[TensorSpec]) -> bytes:
    """The bytes of a plan; MismatchError if it does not leave tensors of `specs`, in the directory's order."""
    index = {spec.name: i for i, spec in enumerate(specs)}
    uses: dict[bytes, list[tuple[int, int]]] = {}
    for name, axes in plan.kept.items():
        if name not in index:
            raise MismatchError(f"{name}: the plan has it, the tensors to save do not")
        left, shape = plan.cut_shape(name), specs[index[name]].shape
        if shape != left:
            raise MismatchError(f"{name}: plan leaves {left}, tensor is {shape}")
        for axis, kept in axes.items():
            uses.setdefault(_bitmap(kept, plan.shapes[name][axis]), []).append((index[name], axis))
    for block in plan.bypassed:
        if inside := next((spec.name for spec in specs if spec.name.startswith(f"{block}.")), None):
            raise MismatchError(f"{inside}: the plan bypasses {block}, the tensors to save have it")
    out = varint(len(uses)) + b"".join(bitmap + _uses(places) for bitmap, places in uses.items())
    settings = {".".join(filter(None, key)): value for key, value in plan.settings.items()}
    return out + _named(settings) + _named(dict(plan.bypassed))


def read_plan(source: Cursor, specs: Sequence[TensorSpec | None]) -> Plan:
    """The plan in `source`, for the directory's tensors; None stands for a tied one.

    FormatError if the bytes violate the specification, or do not fit the tensors.
    """
    kept: dict[str, dict[int, Tensor]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(source.varint()):
        n, positions = _read_bitmap(source)
        for i, axis in _read_uses(source):
            spec = specs[i] if i < len(specs) else None
            if spec is None or axis >= len(spec.shape) or spec.shape[axis] != len(positions):
                found = f"entry {i}, axis {axis}" if spec is None else f"{spec.name} of {spec.shape}, axis {axis}"
                raise source.error(f"a tensor with {len(positions)} positions along the axis", found)
            axes = kept.setdefault(spec.name, {})
            source.expect(axis not in axes, "an axis once", f"axis {axis} of {spec.name} twice")
            axes[axis] = positions
            shape = shapes.get(spec.name, spec.shape)
            shapes[spec.name] = (*shape[:axis], n, *shape[axis + 1 :])
    settings: dict[tuple[str, str], int] = {}
    for path, value in _read_named(source).items():
        module, _, attribute = path.rpartition(".")
        source.expect(attribute and value, "an attribute and its value above 0", f"{path!r} = {value}")
        settings[module, attribute] = value
    bypassed = _read_named(source)
    if too_long := [name for name, n in bypassed.items() if n > MAX_TUPLE_LENGTH]:
        raise source.error(f"blocks that return at most {MAX_TUPLE_LENGTH} values", repr(too_long[0]))
    source.end("the plan's end")
    in_order = {name: dict(sorted(axes.items())) for name, axes in sorted(kept.items())}
    return Plan(shapes, in_order, settings, bypassed)


def _bitmap(kept: Tensor, n: int) -> bytes:
    bits = np.zeros(n, np.uint8)
    bits[kept.numpy()] = 1
    return varint(n) + np.packbits(bits).tobytes()


def _read_bitmap(source: Cursor) -> tuple[int, Tensor]:
    """Length of the dense axis, and its kept positions."""
    n = source.varint()
    bits = np.unpackbits(np.frombuffer(source.take((n + 7) // 8), np.uint8))
    valid = bits.any() and not bits[n:].any()
    source.expect(valid, "a bitmap with a position that stays and zeros after its end", "another")
    return n, torch.tensor(np.flatnonzero(bits), dtype=torch.int64)


def _uses(places: list[tuple[int, int]]) -> bytes:
    out, previous = varint(len(places)), 0
    for i, axis in sorted(places):
        out += varint(2 * (i - previous) + bool(axis)) + (varint(axis) if axis else b"")
        previous = i
    return out


def _read_uses(source: Cursor) -> list[tuple[int, int]]:
    """(entry, axis), increasing."""
    places: list[tuple[int, int]] = []
    for _ in range(source.varint()):
        step = source.varint()
        axis = source.varint() if step % 2 else 0
        source.expect(axis or not step % 2, "an axis above 0", 0)
        places.append((step // 2 + (places[-1][0] if places else 0), axis))
        if places[-2:-1] >= places[-1:]:
            raise source.error("places in increasing order", f"{places[-1]} after {places[-2]}")
    source.expect(places, "a bitmap that is used", "one that is not")
    return places


def _named(values: dict[str, int]) -> bytes:
    out, previous = varint(len(values)), b""
    for name, value in sorted(values.items()):
        out += write_name(name.encode(), previous) + varint(value)
        previous = name.encode()
    return out


def _read_named(source: Cursor) -> dict[str, int]:
    values: dict[str, int] = {}
    previous = b""
    for _ in range(source.varint()):
        previous = read_name(source, previous)
        name = previous.decode()
        source.expect(name not in values, "names that differ", f"{name!r} twice")
        values[name] = source.varint()
    return values
