"""Attention heads, found by structure: projections of queries, keys and values, and the layer after.

A member is one key/value head with all the query heads that read it (grouped-query attention, Ainslie et al. 2023; one
query head each in plain attention): rows of the three projections, and columns of the output projection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from laconic.errors import UnsupportedError
from laconic.model.modules import first_names
from laconic.surgery.plan import Coupling, Group, Part
from laconic.surgery.verify import outputs, sandboxed, sift

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

    Arguments and errors are those of `find_channels`.
    """
    with sandboxed(model, inputs, seconds) as (copied, matching):
        refused = {
            name: "nn.MultiheadAttention packs its projections and divides the model's width by its heads"
            for name, module in copied.named_modules()
            if isinstance(module, nn.MultiheadAttention)
        }
        known = {name for name, _, _ in attentions(copied)} | refused.keys()
        for name, module in copied.named_modules():  # other modules that have layers and heads
            sized = any(type(vars(module).get(attribute)) is int for attribute in (*COUNTS, *WIDTHS))
            if sized and name not in known and any(p.ndim > 1 for p in module.parameters()):
                refused[name] = UNKNOWN
        found: list[Group] = []
        order = _order(copied, matching)
        names = first_names(copied)
        for name, module, projections in attentions(copied):
            try:
                found.append(_group(name, vars(module), projections, order, names))
            except UnsupportedError as error:
                refused[name] = str(error)
        groups, failed = sift(copied, matching, found)
        # Some attributes as large as the projection mean its heads together, others the model's width.
        narrow = [
            replace(group, settings=tuple(setting for setting in group.settings if "head" in setting[1]))
            for group in found
            if group.name in failed
        ]
        groups, failed = sift(copied, matching, narrow, groups)
    return Coupling(tuple(groups), refused | failed)


def attentions(model: nn.Module) -> Iterator[tuple[str, nn.Module, list[nn.Linear]]]:
    """Name, module and projections of modules with three linear children named alike except query, key and value."""
    for name, module in model.named_modules():
        linears = {n: child for n, child in module.named_children() if isinstance(child, nn.Linear)}
        for query, key, value in SPELLINGS:
            for child in linears:
                names = [child, child.replace(query, key, 1), child.replace(query, value, 1)]
                if query in child and len(set(names)) == 3 and linears.keys() >= set(names):
                    yield name, module, [linears[n] for n in names]


def _order(model: nn.Module, inputs: Any) -> list[nn.Linear]:
    """The linear layers in the order in which they run."""
    order: list[Any] = []
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                hooks.enter_context(module.register_forward_hook(lambda layer, *_: order.append(layer)))
        outputs(model, inputs)
    return order


def _group(
    name: str, own: dict[str, Any], projections: list[nn.Linear], order: list[nn.Linear], names: dict[int, str]
) -> Group:
    """The heads of an attention with attributes `own`; UnsupportedError where they cannot be found."""
    query, key, value = projections
    widths = [own[attribute] for attribute in WIDTHS if type(own.get(attribute)) is int]
    counts = [own.get(attribute, getattr(own.get("config"), attribute, None)) for attribute in COUNTS]
    widths += [query.out_features // count for count in counts if type(count) is int and count > 0]
    width = widths[0] if widths else 0
    if not width or query.out_features % width or key.out_features % width:
        raise UnsupportedError("expected heads of equal width, found no attribute that tells it")
    n = key.out_features // width
    queries_each, rest = divmod(query.out_features // width, n)
    if n < 2 or rest or value.out_features % n:
        found = f"{n} and {queries_each}"
        raise UnsupportedError(f"expected several heads, a whole number of queries for each, found {found}")
    value_width = value.out_features // n
    last = max((i for i, module in enumerate(order) if module in projections), default=len(order))
    joined = queries_each * value_width * n
    output = next((module for module in order[last + 1 :] if module.in_features == joined), None)
    if output is None:
        raise UnsupportedError(f"expected an output projection of {joined} inputs to run after it, found none")
    sizes = ((query, width * queries_each), (key, width), (value, value_width))
    places = [(tensor, 0, each) for module, each in sizes for tensor in (module.weight, module.bias)]
    places.append((output.weight, 1, queries_each * value_width))
    parts = [
        Part(names[id(tensor)], axis, torch.arange(n * each).reshape(n, each))
        for tensor, axis, each in places
        if tensor is not None
    ]
    settings = tuple(  # integers that count heads, and those that are as large as the projected queries
        (name, attribute, number // n)
        for attribute, number in own.items()
        if type(number) is int
        and attribute not in WIDTHS
        and (number == query.out_features or ("head" in attribute and number in (n, n * queries_each)))
    )
    return Group(name, tuple(parts), settings)
