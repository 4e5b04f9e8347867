"""A plan's bytes. `docs/format.md`, "Plan", is the specification.

Tensors that lose the same channels share one bitmap, and are named by their place in the directory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from laconic.codec.spec import TensorSpec
from laconic.coding.bitio import Cursor, varint
from laconic.errors import MismatchError
from laconic.file.names import read_name, write_name
from laconic.surgery.plan import Plan

MAX_TUPLE_LENGTH = 64  # of what a bypassed block returns


def encode(plan: Plan, specs: Sequence[TensorSpec]) -> bytes:
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


def decode(source: Cursor, specs: Sequence[TensorSpec | None]) -> Plan:
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
            if axis in kept.setdefault(spec.name, {}):
                raise source.error("an axis once", f"axis {axis} of {spec.name} twice")
            kept[spec.name][axis] = positions
            shape = shapes.get(spec.name, spec.shape)
            shapes[spec.name] = (*shape[:axis], n, *shape[axis + 1 :])
    settings: dict[tuple[str, str], int] = {}
    for path, value in _read_named(source).items():
        module, _, attribute = path.rpartition(".")
        if not attribute or not value:
            raise source.error("an attribute and its value above 0", f"{path!r} = {value}")
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
    if bits[n:].any() or not bits.any():
        raise source.error("a bitmap with a position that stays and zeros after its end", "another")
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
        if step % 2 and not axis:
            raise source.error("an axis above 0", "0")
        places.append((step // 2 + (places[-1][0] if places else 0), axis))
        if places[-2:-1] >= places[-1:]:
            raise source.error("places in increasing order", f"{places[-1]} after {places[-2]}")
    if not places:
        raise source.error("a bitmap that is used", "one that is not")
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
        if previous.decode() in values:
            raise source.error("names that differ", f"{previous.decode()!r} twice")
        values[previous.decode()] = source.varint()
    return values
