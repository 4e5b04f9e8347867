"""Tensor by tensor: what pruning left of each, in weights, multiply–adds and bytes.

Zeros and cuts save different things. A cut makes a tensor's shape smaller, and with it the multiply–adds of
any machine. A zero within the shape is multiplied all the same, except by kernels that skip zeros; in the
file both are saved. So there are two counts of multiply–adds: by shapes, and of weights that are not zero.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from laconic.core.text import as_text, short
from laconic.description.ledger import Ledger
from laconic.errors import MismatchError
from laconic.model.modules import first_names, unwrap
from laconic.model.selectors import compressible
from laconic.surgery.macs import count_macs

if TYPE_CHECKING:
    from rich.table import Table


REST, TOTAL = "all the rest", "total"


@dataclass(frozen=True)
class TensorRow:
    """One tensor, or several summed.

    Attributes:
        name: the tensor's first name.
        dense_shape: its shape before; none where several are summed.
        shape: its shape now; None if it is gone.
        n_dense: its elements before.
        n_kept: its elements now that are not zero.
        macs_dense: multiply–adds before; None if not measured, as below.
        macs_now: multiply–adds now, by its shape: what every machine does.
        macs_of_nonzeros: of these, those that multiply by something: what kernels that skip zeros would do.
        file_bytes: its part of the file.
    """

    name: str
    n_dense: int
    n_kept: int
    dense_shape: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = ()
    macs_dense: float | None = None
    macs_now: float | None = None
    macs_of_nonzeros: float | None = None
    file_bytes: int | None = None

    @property
    def fraction_pruned(self) -> float:
        """Of its elements before, those that are zero or gone."""
        return 1 - self.n_kept / self.n_dense if self.n_dense else 0.0

    @property
    def shapes(self) -> str:
        """Its shape in words, such as ``8×4 → 6×4`` where it was cut."""
        before, now = (None if s is None else "×".join(map(str, s)) for s in (self.dense_shape, self.shape))
        return before or "" if now == before else f"{before} → {now or 'gone'}"


@dataclass(frozen=True)
class TensorTable:
    """What pruning left of a network.

    Attributes:
        rows: of the tensors that compress, tied ones once.
        rest: everything else: biases, norms, statistics; of the file also its header and its plan. Elements
            count as pruned only where they were cut: a bias may be zero by itself.
    """

    rows: tuple[TensorRow, ...]
    rest: TensorRow

    @property
    def all_rows(self) -> tuple[TensorRow, ...]:
        """Those of tensors, the rest, and the total."""
        return (*self.rows, self.rest, self.total)

    @property
    def total(self) -> TensorRow:
        """All of the network's parameters, and the whole file."""
        rows = [*self.rows, self.rest]
        n_bytes = _sum(row.file_bytes for row in rows)
        return TensorRow(
            name=TOTAL,
            n_dense=sum(row.n_dense for row in rows),
            n_kept=sum(row.n_kept for row in rows),
            macs_dense=_sum(row.macs_dense for row in rows),
            macs_now=_sum(row.macs_now for row in rows),
            macs_of_nonzeros=_sum(row.macs_of_nonzeros for row in rows),
            file_bytes=None if n_bytes is None else round(n_bytes),
        )

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
        table.caption = self.note or None
        table.add_column("tensor", overflow="fold", ratio=1)
        columns = self.columns()
        for heading in columns:
            table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=heading != "shape")
        any_cut = any(row.shape != row.dense_shape for row in self.rows)
        for row in (*self.rows, self.rest):
            # Where 80 columns are few, shapes take two lines, and names as many.
            name = re.sub(r"\.(?=[^.]*$)", "\n.", row.name) if any_cut and len(row.name) > 18 else row.name
            cells = (cell(row).replace(" →", "\n→") for cell in columns.values())
            table.add_row(Text(name), *cells)
        table.add_section()
        table.add_row(TOTAL, *(cell(self.total) for cell in columns.values()))
        return table

    def columns(self) -> dict[str, Callable[[TensorRow], str]]:
        """What is known of the rows: heading → a row's entry in words."""
        columns: dict[str, Callable[[TensorRow], str]] = {
            "shape": lambda row: row.shapes,
            "weights kept": lambda row: f"{row.n_kept:,}",
            "pruned": lambda row: f"{row.fraction_pruned:.1%}",
        }
        if self.rest.macs_now is not None:
            columns |= {
                "MACs dense": lambda row: short(row.macs_dense or 0),
                "MACs now": lambda row: short(row.macs_now or 0),
                "MACs without zeros": lambda row: short(row.macs_of_nonzeros or 0),
            }
        if self.rest.file_bytes is not None:
            columns["file bytes"] = lambda row: f"{row.file_bytes:,}"
        return columns

    @property
    def note(self) -> str:
        """What the columns mean, where they need it."""
        if self.rest.macs_now is None:
            return ""
        return (
            "MACs: multiply–adds of one example. Now: by the shapes that are left, what any machine saves. "
            "Without zeros: only kernels that skip zeros would save that."
        )


def compare_tensors(
    dense: nn.Module, model: nn.Module, inputs: Any = None, ledger: Ledger | None = None
) -> TensorTable:
    """Account for every tensor of `dense` that compresses, given what pruning made of it.

    Args:
        dense: the network before; its values do not matter, only names, shapes and layers.
        model: the network now: with zeros, or really smaller (`laconic.shrink`), or both; or `dense` itself.
        inputs: example arguments, to count multiply–adds (`laconic.surgery.count_macs`); without, they are left out.
        ledger: of the model's file, from `laconic.describe`; without, bytes are left out.

    Raises:
        MismatchError: the model's tensors do not fit into the dense ones.
    """
    before, now = compressible(dense), _state(model)
    uses = {} if inputs is None else {"dense": count_macs(dense, inputs), "now": count_macs(model, inputs)}
    n_bytes = None if ledger is None else _bytes_of_tensors(ledger, dense)
    rows: list[TensorRow] = []
    for name, weight in before.items():
        left = now.get(name)
        _check(name, weight, left)
        n_left, n_kept = (0, 0) if left is None else (left.numel(), int(left.count_nonzero()))
        row = TensorRow(
            name=name,
            n_dense=weight.numel(),
            n_kept=n_kept,
            dense_shape=tuple(weight.shape),
            shape=None if left is None else tuple(left.shape),
            file_bytes=None if n_bytes is None else n_bytes.pop(name, 0),
        )
        if uses:
            now_each = uses["now"].get(name, 0.0)
            row = replace(
                row,
                macs_dense=uses["dense"][name] * weight.numel(),
                macs_now=now_each * n_left,
                macs_of_nonzeros=now_each * n_kept,
            )
        rows.append(row)
    return TensorTable(tuple(rows), _rest(dense, model, set(before), n_bytes, 0.0 if uses else None))


def _state(model: nn.Module) -> dict[str, Tensor]:
    return unwrap(model).state_dict(keep_vars=True)


def _check(name: str, weight: Tensor, left: Tensor | None) -> None:
    if left is None:
        return
    fits = left.ndim == weight.ndim and all(n <= m for n, m in zip(left.shape, weight.shape, strict=True))
    if not fits:
        raise MismatchError(f"{name}: tensor is {tuple(left.shape)}, the dense one {tuple(weight.shape)}")


def _bytes_of_tensors(ledger: Ledger, dense: nn.Module) -> dict[str, int]:
    """Bytes of the file by tensor, those of later names of a tied one with its first."""
    names = first_names(unwrap(dense))
    first = {name: names[id(tensor)] for name, tensor in _state(dense).items()}
    n_bytes: Counter[str] = Counter()
    for name, bits in ledger.by_tensor().items():
        n_bytes[first.get(name, "")] += round(bits / 8)
    return n_bytes


def _rest(
    dense: nn.Module, model: nn.Module, listed: set[str], n_bytes: Mapping[str, int] | None, n_macs: float | None
) -> TensorRow:
    """Parameters that are not listed, and the bytes that are left."""
    n_before, n_now = (
        sum(p.numel() for name, p in unwrap(net).named_parameters() if name not in listed) for net in (dense, model)
    )
    return TensorRow(
        name=REST,
        n_dense=n_before,
        n_kept=n_now,
        macs_dense=n_macs,
        macs_now=n_macs,
        macs_of_nonzeros=n_macs,
        file_bytes=None if n_bytes is None else sum(n_bytes.values()),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
