"""Attention heads, found by structure: projections of queries, keys and values, and the layer after.

A member is one key/value head with all the query heads that read it (grouped-query attention, Ainslie et al.
2023; one query head each in plain attention): rows of the three projections, and columns of the output
projection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from laconic.model.modules import first_names
from laconic.surgery.coupling import Coupling, Group, Part
from laconic.surgery.sandbox import sandboxed
from laconic.surgery.verify import outputs, sift

SPELLINGS = (("query", "key", "value"), ("q", "k", "v"))
WIDTHS = ("head_dim", "attention_head_size", "dim_head", "head_size", "d_head", "key_value_proj_dim", "d_kv")
UNKNOWN = "it has heads, but not three linear children named alike for query, key and value"
COUNTS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "heads")


def find_heads(model: nn.Module, inputs: Any, seconds: float = 60) -> Coupling:
    """Find the attention heads of `model` that can be cut.

    An attention is a module with linear children of one name but for query/key/value or q/k/v, a number of
    heads or their width among its attributes, and an output projection: the next linear layer to run that has
    as many inputs. Every group has been tried on a copy; the model itself is not run. `nn.MultiheadAttention`
    is refused: its own forward takes the heads' width from the model's, so that none can go.

    Args:
        model: any module.
        inputs: example arguments of its forward: a tensor, a tuple, or a dictionary by name.
        seconds: limit for the trials.

    Raises:
        UnsupportedError: the time is up, or the model's forward fails.
    """
    with sandboxed(model, inputs, seconds) as (copied, matching):
        refused = {
            name: "nn.MultiheadAttention packs its projections and divides the model's width by its heads"
            for name, module in copied.named_modules()
            if isinstance(module, nn.MultiheadAttention)
        }
        refused |= dict.fromkeys(_unknown(copied, refused), UNKNOWN)
        found: list[Group] = []
        order = _order(copied, matching)
        for attention in attentions(copied):
            group = _group(attention, copied, order)
            if isinstance(group, Group):
                found.append(group)
            else:
                refused[attention.name] = group
        groups, failed = sift(copied, matching, found)
        # Some attributes as large as the projection mean its heads together, others the model's width.
        narrow = [_counts_only(group) for group in found if group.name in failed]
        groups, failed = sift(copied, matching, narrow, groups)
    return Coupling(tuple(groups), refused | failed)


@dataclass(frozen=True)
class Attention:
    """A module that attends, and its projections of queries, keys and values."""

    name: str
    module: nn.Module
    projections: tuple[nn.Linear, nn.Linear, nn.Linear]


def attentions(model: nn.Module) -> Iterator[Attention]:
    """The modules of `model` with three linear children named alike but for query, key and value."""
    for name, module in model.named_modules():
        linears = {n: child for n, child in module.named_children() if isinstance(child, nn.Linear)}
        for query, key, value in SPELLINGS:
            for child in linears:
                names = [child, child.replace(query, key, 1), child.replace(query, value, 1)]
                if query in child and len(set(names)) == 3 and linears.keys() >= set(names):
                    q, k, v = (linears[n] for n in names)
                    yield Attention(name, module, (q, k, v))


def _unknown(model: nn.Module, known: Collection[str]) -> Iterator[str]:
    """Modules that have layers and heads, but not the projections of `attentions`."""
    told = {attention.name for attention in attentions(model)} | set(known)
    for name, module in model.named_modules():
        sized = any(type(vars(module).get(attribute)) is int for attribute in (*COUNTS, *WIDTHS))
        if sized and name not in told and any(p.ndim > 1 for p in module.parameters()):
            yield name


def _order(model: nn.Module, inputs: Any) -> list[nn.Linear]:
    """The linear layers in the order in which they run."""
    order: list[nn.Linear] = []

    def note(module: nn.Module, *_: object) -> None:
        order.append(module)  # pyright: ignore[reportArgumentType]

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        outputs(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _group(attention: Attention, model: nn.Module, order: list[nn.Linear]) -> Group | str:
    """The heads of an attention, or why they cannot be told."""
    query, key, value = attention.projections
    width = _head_width(attention)
    if not width or query.out_features % width or key.out_features % width:
        return "expected heads of equal width, found no attribute that tells it"
    n = key.out_features // width
    queries_each, rest = divmod(query.out_features // width, n)
    if n < 2 or rest or value.out_features % n:
        return f"expected several heads, a whole number of queries for each, found {n} and {queries_each}"
    value_width = value.out_features // n
    last = max((i for i, module in enumerate(order) if module in attention.projections), default=len(order))
    joined = queries_each * value_width * n
    output = next((module for module in order[last + 1 :] if module.in_features == joined), None)
    if output is None:
        return f"expected an output projection of {joined} inputs to run after it, found none"
    names = first_names(model)
    widths = ((query, width * queries_each), (key, width), (value, value_width))
    parts = [
        _part(names[id(tensor)], 0, n, each)
        for module, each in widths
        for tensor in (module.weight, module.bias)
        if tensor is not None
    ]
    parts.append(_part(names[id(output.weight)], 1, n, queries_each * value_width))
    return Group(attention.name, tuple(parts), _settings(attention, n, queries_each))


def _head_width(attention: Attention) -> int:
    own = vars(attention.module)
    for name in WIDTHS:
        if type(own.get(name)) is int:
            return own[name]
    config = own.get("config")
    for name in COUNTS:
        count = own.get(name, getattr(config, name, None))
        if type(count) is int and count > 0:
            return attention.projections[0].out_features // count
    return 0


def _settings(attention: Attention, n: int, queries_each: int) -> tuple[tuple[str, str, int], ...]:
    """The module's integers that count heads, and those that are as large as the projected queries."""
    joined = attention.projections[0].out_features
    found: list[tuple[str, str, int]] = []
    for name, value in vars(attention.module).items():
        if type(value) is int and name not in WIDTHS:
            if value == joined:
                found.append((attention.name, name, joined // n))
            elif "head" in name and value in (n, n * queries_each):
                found.append((attention.name, name, value // n))
    return tuple(found)


def _counts_only(group: Group) -> Group:
    return replace(group, settings=tuple(setting for setting in group.settings if "head" in setting[1]))


def _part(name: str, axis: int, n: int, width: int) -> Part:
    return Part(name, axis, torch.arange(n * width).reshape(n, width))
