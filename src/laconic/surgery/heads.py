"""Attention heads, found by structure: projections of queries, keys and values, and the layer after.

A member is one key/value head with all the query heads that read it (grouped-query attention, Ainslie et al. 2023; one
query head each in plain attention): rows of the three projections, and columns of the output projection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from laconic.errors import UnsupportedError
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

    An attention is a module with linear children whose names differ only in query/key/value or q/k/v, a number of heads
    or their width among its attributes, and an output projection: the next linear layer to run that has as many inputs.
    Every group was tried on a copy; the model itself is not run. `nn.MultiheadAttention` is refused: its forward
    derives the heads' width from the model's.

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
        known = {attention.name for attention in attentions(copied)} | refused.keys()
        for name, module in copied.named_modules():  # other modules that have layers and heads
            sized = any(type(vars(module).get(attribute)) is int for attribute in (*COUNTS, *WIDTHS))
            if sized and name not in known and any(p.ndim > 1 for p in module.parameters()):
                refused[name] = UNKNOWN
        found: list[Group] = []
        order = _order(copied, matching)
        for attention in attentions(copied):
            try:
                found.append(_group(attention, copied, order))
            except UnsupportedError as error:
                refused[attention.name] = str(error)
        groups, failed = sift(copied, matching, found)
        # Some attributes as large as the projection mean its heads together, others the model's width.
        narrow = [
            replace(group, settings=tuple(setting for setting in group.settings if "head" in setting[1]))
            for group in found
            if group.name in failed
        ]
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


def _order(model: nn.Module, inputs: Any) -> list[nn.Linear]:
    """The linear layers in the order in which they run."""
    order: list[Any] = []
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                hooks.enter_context(module.register_forward_hook(lambda layer, *_: order.append(layer)))
        outputs(model, inputs)
    return order


def _group(attention: Attention, model: nn.Module, order: list[nn.Linear]) -> Group:
    """The heads of an attention; UnsupportedError where they cannot be told."""
    query, key, value = attention.projections
    width = _head_width(attention)
    if not width or query.out_features % width or key.out_features % width:
        raise UnsupportedError("expected heads of equal width, found no attribute that tells it")
    n = key.out_features // width
    queries_each, rest = divmod(query.out_features // width, n)
    if n < 2 or rest or value.out_features % n:
        found = f"{n} and {queries_each}"
        raise UnsupportedError(f"expected several heads, a whole number of queries for each, found {found}")
    value_width = value.out_features // n
    last = max((i for i, module in enumerate(order) if module in attention.projections), default=len(order))
    joined = queries_each * value_width * n
    output = next((module for module in order[last + 1 :] if module.in_features == joined), None)
    if output is None:
        raise UnsupportedError(f"expected an output projection of {joined} inputs to run after it, found none")
    names = first_names(model)
    widths = ((query, width * queries_each), (key, width), (value, value_width))
    places = [(tensor, 0, each) for module, each in widths for tensor in (module.weight, module.bias)]
    places.append((output.weight, 1, queries_each * value_width))
    parts = [
        Part(names[id(tensor)], axis, torch.arange(n * each).reshape(n, each))
        for tensor, axis, each in places
        if tensor is not None
    ]
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
