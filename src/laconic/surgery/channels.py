"""Channels: neurons, filters and embedding dimensions, coupled through the graph.

The graph is torch-pruning's (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning"): it follows autograd through
sums, concatenations, reshapes and convolutions. It is walked once for each layer's outputs, and what is met becomes a
group: its members are classes of channels that share a position of a tensor, or a place in a grouped convolution.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from laconic.errors import UnsupportedError
from laconic.model.modules import call, first_names
from laconic.surgery.heads import attentions
from laconic.surgery.plan import Coupling, Group, Part, inside
from laconic.surgery.verify import floats, sandboxed, sift

PRODUCERS = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)
BY_CHANNEL = (nn.modules.batchnorm._NormBase, nn.PReLU)
LOST = "the trace loses its channels on the way"
OPAQUE = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def find_channels(model: nn.Module, inputs: Any, seconds: float = 60) -> Coupling:
    """Find the channels of `model` that can be cut: neurons, filters, embedding dimensions.

    Every group was tried: half of its members cut on a copy, against the same set to zero. The model itself is not run.
    Groups that a normalisation sums over, that are the model's inputs or outputs, or that lie in attention, recurrent
    or unknown layers are refused by name.

    Args:
        model: any module; frozen parameters are followed like others.
        inputs: example arguments of its forward: a tensor, a tuple, or a dictionary by name.
        seconds: limit for trace and trials.

    Raises:
        UnsupportedError: the time is up, or the trace or the model's forward fails.
        ImportError: torch-pruning is not installed.
    """
    with sandboxed(model, inputs, seconds) as (copied, matching):
        trace = _Trace(copied, matching)
        candidates, refused = trace.groups()
        # Most that reach the outputs will fail, each with trials of its own: not in one with the others.
        inner = [group for group in candidates if group.name not in trace.outermost]
        groups, failed = sift(copied, matching, inner)
        groups, also = sift(copied, matching, [g for g in candidates if g not in inner], groups)
    refused |= failed | also
    for name, module in copied.named_modules():
        if isinstance(module, PRODUCERS) and name not in trace.seen and not inside(name, refused):
            refused[name] = "the trace does not reach it from the outputs"
    return Coupling(tuple(groups), refused)


class _Trace:
    """torch-pruning's graph of a model, read out as groups.

    Attributes:
        seen: names of the producers that belong to a group or a refusal.
        outermost: names of the groups that reach the model's outputs, according to the graph.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        try:
            import torch_pruning
        except ImportError as error:
            raise ImportError('channels needs torch-pruning: pip install "laconic-nn[surgery]"') from error
        self.model = model
        self.modules = {id(module): name for name, module in model.named_modules()}
        self.tensors = first_names(model)
        self.longest = max((n for p in model.parameters() for n in p.shape), default=0)
        self.seen: set[str] = set()
        self.outermost: set[str] = set()
        opaque = [m for m in model.modules() if isinstance(m, OPAQUE)]
        self.opaque = {inner for module in opaque for inner in module.modules()}
        self.refused = {
            self.modules[id(m)]: f"{type(m).__name__} packs its weights: its channels are not told apart"
            for m in opaque
        }
        for attention, _, projections in attentions(model):
            self.opaque.update(projections)
            reason = f"it projects for {attention}, which loses whole heads: see `heads`"
            self.refused |= {self.modules[id(projection)]: reason for projection in projections}
        self._index = torch_pruning._helpers._HybridIndex
        self.graph = torch_pruning.DependencyGraph().build_dependency(
            model,
            inputs,
            forward_fn=call,
            output_transform=lambda found: [t for t in floats(found) if t.grad_fn is not None],
            ignored_layers=[*opaque],
            verbose=False,
        )

    def groups(self) -> tuple[list[Group], dict[str, str]]:
        """The groups that are worth a trial, in the model's order, and why others are not."""
        groups: list[Group] = []
        for name, module in self.model.named_modules():
            traced = isinstance(module, PRODUCERS) and module in self.graph.module2node
            if traced and name not in self.seen and module not in self.opaque:
                try:
                    groups.append(self._group(name, module))
                except UnsupportedError as error:
                    self.refused[name] = str(error)
        return groups, self.refused

    def _group(self, name: str, module: nn.Module) -> Group:
        at: dict[tuple[str, int], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        together = _Classes()
        for node, output_side, pairs in self._walk(module, together):
            if not node.outputs:
                self.outermost.add(name)
            parts, period = self._cut_by(node, output_side)
            for tensor, axis in parts:
                key, n = (self.tensors[id(tensor)], axis), tensor.shape[axis]
                for index, root in pairs:
                    position = index % n if period else index
                    if position >= n:
                        raise UnsupportedError(LOST)
                    at[key][root].add(position)
                    together.join(root, (key, position))
            for index, root in pairs if period else ():
                together.join(root, (id(node.module), output_side, index % period))
        members = together.members()
        if len(members) < 2:
            raise UnsupportedError("it has a single member")
        return Group(name, tuple(_part(key, positions, members) for key, positions in at.items()))

    def _walk(self, module: nn.Module, together: _Classes) -> Iterator[tuple[Any, bool, list[tuple[int, int]]]]:
        """Operations that lose something with the outputs of `module`, each with (position, channel lost).

        torch-pruning's own walk repeats a cycle for as long as it shifts positions, so it may never end. Here each
        position is visited once; two channels that meet at a position go together.
        """
        pruner: Any = self.graph.get_pruner_of_module(module)
        n = pruner.get_out_channels(module)
        stack = [(self.graph.module2node[module], pruner.prune_out_channels, [(i, i) for i in range(n)])]
        while stack:
            node, handler, pairs = stack.pop()
            if not all(0 <= index < self.longest for index, _ in pairs):
                raise UnsupportedError(LOST)
            if new := [(index, root) for index, root in pairs if together.join(root, (id(node), handler, index))]:
                yield node, handler.__name__ != "prune_in_channels", new
                stack += [
                    (dep.target, dep.handler, self._mapped(dep, new))
                    for dep in node.dependencies
                    if dep.is_triggered_by(handler)
                ]

    def _mapped(self, dependency: Any, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        indices = [self._index(idx=index, root_idx=channel) for index, channel in pairs]
        try:
            for mapping in dependency.index_mapping:
                indices = mapping(indices) if mapping is not None else indices
        except Exception as error:  # a mapping that the tracer made from operations it does not know
            raise UnsupportedError(LOST) from error
        return [(i.idx, i.root_idx) for i in indices]

    def _cut_by(self, node: Any, output_side: bool) -> tuple[list[tuple[Tensor, int]], int]:
        """The tensors and axes of an operation that channels lie along, and their period.

        The period is the number of channels in a group of a grouped convolution, 0 where channels are independent.
        Operations without tensors have none.
        """
        module, name = node.module, self.modules.get(id(node.module), "")
        if isinstance(module, nn.Parameter):
            owner = self.tensors[id(module)].rpartition(".")[0]
            _refuse_norm(owner, self.model.get_submodule(owner))
            return [(module, node.pruning_dim)], 0
        if output_side and isinstance(module, PRODUCERS):
            self.seen.add(name)
        if isinstance(module, nn.modules.conv._ConvNd):
            return _cut_convolution(name, module, output_side)
        own = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
        if isinstance(module, nn.Linear):
            return ([(t, 0) for t in own] if output_side else [(module.weight, 1)]), 0
        if isinstance(module, nn.Embedding):
            return [(module.weight, 1)], 0
        if isinstance(module, BY_CHANNEL):
            return [(t, 0) for t in own if t.ndim and t.numel() > 1], 0
        _refuse_norm(name, module)
        if own:
            raise UnsupportedError(f"it reaches {name}, a {type(module).__name__}")
        return [], 0


def _refuse_norm(name: str, module: nn.Module) -> None:
    kind = type(module).__name__.lower()
    if "norm" in kind and "batchnorm" not in kind:
        raise UnsupportedError(f"{name} normalises over it")


class _Classes:
    """Union-find: roots that were joined to the same thing are in one class."""

    def __init__(self) -> None:
        self.parent: dict[int, int] = {}
        self.first: dict[object, int] = {}

    def find(self, root: int) -> int:
        while self.parent.setdefault(root, root) != root:
            self.parent[root] = root = self.parent[self.parent[root]]
        return root

    def join(self, root: int, thing: object) -> bool:
        """Whether this is the first root that is joined to the thing."""
        is_new = thing not in self.first
        a, b = sorted((self.find(root), self.find(self.first.setdefault(thing, root))))
        self.parent[b] = a
        return is_new

    def members(self) -> list[list[int]]:
        classes: dict[int, list[int]] = defaultdict(list)
        for root in sorted(self.parent):
            classes[self.find(root)].append(root)
        return list(classes.values())


def _part(key: tuple[str, int], positions: Mapping[int, set[int]], members: list[list[int]]) -> Part:
    tensor, axis = key
    rows = [sorted(set[int]().union(*(positions.get(root, ()) for root in roots))) for roots in members]
    widths = sorted(set(map(len, rows)))
    if len(widths) > 1:
        raise UnsupportedError(f"its members differ: they have {widths[0]} to {widths[-1]} positions each in {tensor}")
    return Part(tensor, axis, torch.tensor(rows, dtype=torch.int64))


def _cut_convolution(name: str, module: Any, output_side: bool) -> tuple[list[tuple[Tensor, int]], int]:
    bias = [(module.bias, 0)] if module.bias is not None else []
    if module.groups == module.in_channels == module.out_channels:
        return [(module.weight, 0), *bias], 0
    if module.groups in (module.in_channels, module.out_channels) and module.groups > 1:
        raise UnsupportedError(f"{name} has several filters for a channel, or several channels for a filter")
    axis = 0 if output_side != module.transposed else 1
    n_channels = module.out_channels if output_side else module.in_channels
    period = n_channels // module.groups if module.groups > 1 else 0
    return [(module.weight, axis), *(bias if output_side else [])], period
