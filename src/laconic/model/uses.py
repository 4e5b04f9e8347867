"""Uses: which weights a forward pass multiplies with what.

A weight counts wherever it enters one of PyTorch's functions: in a linear layer, in attention, in a bare `x @ w`, in an
expert's share of a grouped product. Functions are intercepted (`TorchFunctionMode`), not modules, so that it does not
matter which module holds a weight. A view of a parameter is recognised by the memory that it shares.

Every use is brought to one form, y = x Wᵀ, with W some of the parameter's rows:

- a convolution multiplies patches, in groups;
- a transposed convolution multiplies each position's inputs; where its patches overlap, this is an approximation;
- fused recurrent layers (LSTM, GRU, RNN) are run step by step, in the same equations;
- embeddings multiply nothing: they are only noted as looked up.

What enters other functions, such as `torch.einsum`, is noted with the function's name.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils import _pytree
from typing_extensions import override

from laconic.model.recurrent import RECURRENT, unrolled

# A private copy of PyTorch's function that does not ask for overrides again, so that the products in it are seen.
_ATTENTION = F.multi_head_attention_forward
_INSIDE = FunctionType(
    _ATTENTION.__code__,
    {**_ATTENTION.__globals__, "has_torch_function": lambda _: False},
    argdefs=_ATTENTION.__defaults__,
)
_INSIDE.__kwdefaults__ = _ATTENTION.__kwdefaults__

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
_PRODUCTS: dict[Callable[..., Any], int] = {  # function → the place of its left factor
    **dict.fromkeys((torch.mm, torch.bmm, torch.matmul, torch.Tensor.mm, torch.Tensor.bmm, torch.Tensor.matmul), 0),
    torch.Tensor.__matmul__: 0,
    **dict.fromkeys((torch.addmm, torch.baddbmm, torch.Tensor.addmm, torch.Tensor.baddbmm), 1),
}


@dataclass(frozen=True)
class Use:
    """A product y = x Wᵀ of inputs with rows of a parameter.

    Attributes:
        name: the parameter's.
        rows: the first row of W among the parameter's, and the one after the last.
        n_rows: number of the parameter's rows.
        step: see `as_rows`.
        n_positions: number of vectors x.
        inputs: computes them, (groups, positions, d): rows are divided evenly among groups.
        output: what the function returned.
        squares: from the loss's gradient for `output`, its squares, summed over positions, (rows,).
        n_kernel: how many neighbouring inputs are one channel's.
    """

    name: str
    rows: tuple[int, int]
    n_rows: int
    step: int
    n_positions: int
    inputs: Callable[[], Float[Tensor, "groups positions d"]]
    output: Tensor
    squares: Callable[[Tensor], Float[Tensor, " rows"]]
    n_kernel: int = 1


@dataclass
class Notes:
    """What is noted beside the uses.

    Attributes:
        looked_up: parameters that are tables of embeddings.
        elsewhere: parameter's name → the name of another function that it enters.
    """

    looked_up: set[str] = field(default_factory=set)
    elsewhere: dict[str, str] = field(default_factory=dict)


_Place: TypeAlias = tuple[str, tuple[int, int], int, int]  # name, rows, n_rows, step


class Watch(TorchFunctionMode):
    """While the block lasts, every use of `model`'s parameters is passed to `note`."""

    def __init__(self, model: nn.Module, note: Callable[[Use], None]) -> None:
        super().__init__()
        self.notes = Notes()
        self._note = note
        named = [(n, p) for n, p in model.named_parameters() if p.numel() and not p.is_sparse]
        self._held = {parameter.untyped_storage().data_ptr(): (name, parameter) for name, parameter in named}

    @override
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        held = [self._name(leaf) for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(held):
            return func(*args, **kwargs)
        if func is _ATTENTION:
            with self:
                return _INSIDE(*args, **kwargs)
        if func in RECURRENT and (run := unrolled(func, args)):
            with self:
                return run()
        output = func(*args, **kwargs)
        uses = list(self._uses(func, args, kwargs, output))
        for use in uses:
            self._note(use)
        if func in (F.embedding, F.embedding_bag):
            table = args[1] if len(args) > 1 else kwargs["weight"]
            self.notes.looked_up.add(self._name(table) or "")
        elif any(isinstance(leaf, Tensor) and not self._name(leaf) for leaf in _pytree.tree_leaves(output)):
            where = resolve_name(func) or getattr(func, "__name__", "a function")
            used = {use.name for use in uses}
            self.notes.elsewhere |= dict.fromkeys((name for name in held if name and name not in used), where)
        return output

    def _name(self, tensor: Any) -> str | None:
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type == "meta":
            return None
        held = self._held.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
        return held[0] if held else None

    def _uses(self, func: Any, args: Any, kwargs: Any, output: Any) -> Iterator[Use]:
        if func is F.linear:
            x, weight = (*args, *kwargs.values())[:2] if "input" not in kwargs else (kwargs["input"], kwargs["weight"])
            yield from self._product(x, weight.mT, output)
        elif func in _CONVOLUTIONS:
            yield from self._convolution(output, *args, **kwargs)
        elif func in _TRANSPOSED:
            yield from self._transposed(output, *args, **kwargs)
        elif func in _PRODUCTS and not kwargs.keys() & {"input", "mat2", "other"}:
            first = _PRODUCTS[func]
            left, right = args[first : first + 2]
            if self._name(right):
                yield from self._product(left, right, output)
            elif left.ndim > 1 and right.ndim > 1:  # W x = (xᵀ Wᵀ)ᵀ
                yield from self._product(right.mT, left.mT, output, axis=-2)
        elif getattr(func, "__name__", "") == "_grouped_mm" and args[0].ndim == 2:
            yield from self._grouped(output, *args, **kwargs)

    def _place(self, columns: Tensor) -> _Place | None:
        """Where a view (d, rows) of a parameter, Wᵀ, lies in it; None if it has another form."""
        name, parameter = self._held[columns.untyped_storage().data_ptr()]
        if not parameter.is_contiguous():  # only convolutions take such weights whole, as in `channels_last`
            return None
        (d, n), (step, stride) = columns.shape, columns.stride()
        offset, n_rows = int(columns.storage_offset() - parameter.storage_offset()), parameter.numel() // d
        if parameter.numel() % d:
            return None
        if (step == 1 or d == 1) and (stride == d or n == 1) and offset % d == 0:
            return name, (offset // d, offset // d + n), n_rows, 0
        if (stride == 1 or n == 1) and step >= n and offset % (d * step) + n <= step and n_rows % step == 0:
            start = offset // (d * step) * step + offset % (d * step)
            return name, (start, start + n), n_rows, step
        return None

    def _product(self, x: Tensor, columns: Tensor, output: Tensor, axis: int = -1) -> Iterator[Use]:
        """X (…, d) times columns (d, rows), or as many matrices (groups, d, rows) as x has."""
        if not self._name(columns) or columns.ndim not in (2, 3) or x.shape[-1] != columns.shape[-2]:
            return
        groups = columns if columns.ndim == 3 else columns[None]
        d, n = groups.shape[1:]
        first, last = self._place(groups[0]), self._place(groups[-1])
        if first is None or last is None or (len(groups) > 1 and (x.ndim != 3 or len(x) != len(groups))):
            return
        name, (start, stop), n_rows, step = first
        if (last[1][1] - start) != len(groups) * (stop - start):
            return

        def squares(delta: Tensor) -> Tensor:
            of_group = delta.double().square().movedim(axis, -1)
            return of_group.reshape(len(groups), -1, n).sum(1).flatten()

        n_positions = x.numel() // (d * len(groups))
        rows = (start, last[1][1])
        yield Use(
            name, rows, n_rows, step, n_positions, lambda: x.detach().reshape(len(groups), -1, d), output, squares
        )

    def _grouped(
        self, output: Tensor, x: Tensor, columns: Tensor, offs: Tensor | None = None, **_: Any
    ) -> Iterator[Use]:
        """Rows of x up to each offset times the matrix (d, rows) of that group."""
        if offs is None or not self._name(columns):
            return
        ends = offs.tolist()
        for group, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > begin and (place := self._place(columns[group])):

                def squares(delta: Tensor, begin: int = begin, end: int = end) -> Tensor:
                    return delta[begin:end].double().square().sum(0)

                yield Use(*place, end - begin, lambda part=x[begin:end]: part.detach()[None], output, squares)

    def _convolution(  # noqa: PLR0913 – the arguments of PyTorch's function
        self, output: Tensor, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1
    ) -> Iterator[Use]:  # fmt: skip
        if name := self._name(weight):
            n = weight.ndim - 2

            def squares(delta: Tensor) -> Tensor:
                return delta.double().square().movedim(-n - 1, 0).flatten(1).sum(1)

            n_positions = output.numel() // len(weight)
            geometry = (_tuple(stride, n), padding, _tuple(dilation, n), groups)
            rows = (0, len(weight))

            def inputs() -> Tensor:
                return patches(x.detach(), weight, *geometry)

            n_kernel = math.prod(weight.shape[2:])
            yield Use(name, rows, len(weight), 0, n_positions, inputs, output, squares, n_kernel)

    def _transposed(  # noqa: PLR0913 – the arguments of PyTorch's function
        self, output: Tensor, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1
    ) -> Iterator[Use]:  # fmt: skip
        if name := self._name(weight):
            n, d = weight.ndim - 2, len(weight) // groups
            kernel = math.prod(weight.shape[2:])
            n_rows = weight.numel() // d

            def inputs() -> Tensor:
                return x.detach().movedim(-n - 1, -1).reshape(-1, groups, d).movedim(1, 0)

            def squares(delta: Tensor) -> Tensor:
                of_channels = delta.double().square().movedim(-n - 1, 0).flatten(1).sum(1)
                return (of_channels / kernel).repeat_interleave(kernel)

            n_positions = x.numel() // (d * groups)
            yield Use(name, (0, n_rows), n_rows, n_rows // groups, n_positions, inputs, output, squares)


@dataclass(frozen=True)
class Form:
    """How a weight's rows meet the Gram matrices of its inputs, (groups, d, d).

    Attributes:
        step: see `as_rows`.
        width: inputs of a row, where they are divided into blocks of d that have Gram matrices of their own; 0 if not.
    """

    step: int = 0
    width: int = 0

    def rows(self, weight: Tensor, groups: int, d: int) -> Shaped[Tensor, "groups rows d"]:
        """A weight's rows; a row in blocks is padded by zeros, and its blocks are in neighbouring groups."""
        rows = as_rows(weight, self.width or d, self.step)
        blocks = self.n_blocks(d)
        if blocks > 1:
            rows = F.pad(rows, (0, blocks * d - self.width))
        return rows.reshape(groups // blocks, -1, blocks, d).movedim(2, 1).flatten(0, 1)

    def weight(self, rows: Shaped[Tensor, "groups rows d"], shape: torch.Size) -> Tensor:
        """The inverse of `rows`, in the weight's shape."""
        d = rows.shape[2]
        whole = rows.unflatten(0, (-1, self.n_blocks(d))).movedim(1, 2).flatten(0, 1).flatten(1)
        return from_rows(whole[:, : self.width or d], shape, self.step)

    def per_row(self, values: Shaped[Tensor, " n"], groups: int, d: int) -> Shaped[Tensor, "groups rows 1"]:
        """Values of all rows, beside `rows`."""
        blocks = self.n_blocks(d)
        return values.reshape(groups // blocks, -1, 1).repeat_interleave(blocks, 0)

    def n_blocks(self, d: int) -> int:
        """Number of blocks of a row."""
        return -(-self.width // d) if self.width else 1


PLAIN = Form()


def eagerly() -> AbstractContextManager[Any]:
    """While the block lasts, compiled modules run as they were written, so that their functions are seen."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):  # from PyTorch 2.6 on
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def as_rows(weight: Tensor, d: int, step: int = 0) -> Shaped[Tensor, "rows d"]:
    """A parameter's rows of `d` inputs each.

    Args:
        weight: of any shape.
        d: number of inputs.
        step: 0 if a row's elements are neighbours, as in a linear layer or a convolution; else how many rows alternate,
            as in weights that lie as (inputs, rows) or (experts, inputs, rows).
    """
    return weight.reshape(-1, d, step).mT.reshape(-1, d) if step else weight.reshape(-1, d)


def from_rows(rows: Shaped[Tensor, "rows d"], shape: torch.Size, step: int = 0) -> Tensor:
    """The inverse of `as_rows`, in the weight's shape."""
    d = rows.shape[1]
    return (rows.reshape(-1, step, d).mT if step else rows).reshape(shape)


def patches(
    x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: Any, dilation: tuple[int, ...], groups: int
) -> Float[Tensor, "groups positions d"]:
    """The inputs that a convolution's weight multiplies: one row a position, d = in/groups · kernel inputs."""
    kernel, n = weight.shape[2:], weight.ndim - 2
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if padding == "same":
        around = [((r - 1) // 2, r - 1 - (r - 1) // 2) for r in reach]
    else:
        around = [(p, p) for p in _tuple(0 if padding == "valid" else padding, n)]
    found = x if x.ndim == n + 2 else x[None]
    found = F.pad(found, [side for pair in reversed(around) for side in pair])
    for axis in range(n):
        found = found.unfold(2 + axis, reach[axis], stride[axis])[..., :: dilation[axis]]
    # (examples, in, *positions, *kernel) → (groups, examples · positions, in/groups · kernel)
    found = found.unflatten(1, (groups, -1)).movedim((1, 0), (0, 1)).movedim(2, 2 + n)
    return found.reshape(groups, -1, math.prod(weight.shape[1:]))


def _tuple(value: Any, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value) * (n if len(value) == 1 else 1)
