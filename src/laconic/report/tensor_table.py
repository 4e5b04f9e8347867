"""Tensor by tensor: what pruning left of each, in weights, multiply–adds and bytes.

Zeros and cuts save different things. A cut makes a tensor's shape smaller, and with it the multiply–adds of
any machine. A zero within the shape is multiplied all the same, except by kernels that skip zeros; in the
file both are saved. So there are two counts of multiply–adds: by shapes, and of weights that are not zero.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
COUNTS = ("n_dense", "n_kept", "macs_dense", "macs_now", "macs_of_nonzeros", "file_bytes")


@dataclass(frozen=True)
class TensorRow:
    """One tensor, or several summed; what was not measured is NaN.

    Attributes:
        name: the tensor's first name.
        n_dense: elements before pruning.
        n_kept: elements after it that are not zero.
        macs_dense: multiply–adds of one example before.
        macs_now: multiply–adds now, by the tensor's shape: what every machine does.
        macs_of_nonzeros: those that multiply by a nonzero weight: what kernels that skip zeros would do.
        file_bytes: the tensor's part of the file.
        dense_shape: the shape before; empty where several tensors are summed.
        shape: the shape now; None if the tensor is gone.
    """

    name: str
    n_dense: int
    n_kept: int
    macs_dense: float = math.nan
    macs_now: float = math.nan
    macs_of_nonzeros: float = math.nan
    file_bytes: float = math.nan
    dense_shape: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = ()

    @property
    def fraction_pruned(self) -> float:
        """The fraction of the elements before that are zero or gone."""
        return 1 - self.n_kept / self.n_dense if self.n_dense else 0.0

    @property
    def shapes(self) -> str:
        """The shape in words, such as ``8×4 → 6×4`` where it was cut."""
        before, now = (None if s is None else "×".join(map(str, s)) for s in (self.dense_shape, self.shape))
        return before or "" if now == before else f"{before} → {now or 'gone'}"


@dataclass(frozen=True)
class TensorTable:
    """What pruning left of a network.

    Attributes:
        rows: the tensors that compress, tied ones once.
        rest: everything else: biases, norms, statistics, and the file's header and plan. Elements count as pruned
            only where they were cut, because a bias may be zero by itself.
    """

    rows: tuple[TensorRow, ...]
    rest: TensorRow

    @property
    def all_rows(self) -> tuple[TensorRow, ...]:
        """The tensors, the rest and the total."""
        return (*self.rows, self.rest, self.total)

    @property
    def total(self) -> TensorRow:
        """All of the network's parameters, and the whole file."""
        rows = (*self.rows, self.rest)
        counts: dict[str, Any] = {count: sum(getattr(row, count) for row in rows) for count in COUNTS}
        return TensorRow(TOTAL, **counts)

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
        """Heading → what it says of a row; columns that were not measured are left out."""
        columns: dict[str, Callable[[TensorRow], str]] = {
            "shape": lambda row: row.shapes,
            "weights kept": lambda row: f"{row.n_kept:,}",
            "pruned": lambda row: f"{row.fraction_pruned:.1%}",
        }
        if not math.isnan(self.rest.macs_now):
            columns["MACs dense"] = lambda row: short(row.macs_dense)
            columns["MACs now"] = lambda row: short(row.macs_now)
            columns["MACs without zeros"] = lambda row: short(row.macs_of_nonzeros)
        if not math.isnan(self.rest.file_bytes):
            columns["file bytes"] = lambda row: f"{row.file_bytes:,.0f}"
        return columns

    @property
    def note(self) -> str:
        """What the columns mean, where they need a note."""
        if math.isnan(self.rest.macs_now):
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
        dense: the network before; only its names, shapes and layers matter.
        model: the network now: with zeros, or really smaller (`laconic.shrink`), or both; or `dense` itself.
        inputs: example arguments, to count multiply–adds (`laconic.surgery.count_macs`).
        ledger: the ledger of the model's file, from `laconic.describe`, to count bytes.

    Raises:
        MismatchError: the model's tensors do not fit into the dense ones.
    """
    before, now = compressible(dense), unwrap(model).state_dict(keep_vars=True)
    macs_before, macs_now = _macs(dense, inputs), _macs(model, inputs)
    n_bytes, unknown = _bytes(ledger, dense), 0 if ledger else math.nan
    rows: list[TensorRow] = []
    for name, weight in before.items():
        left = now.get(name)
        if left is not None and not _fits(left, weight):
            raise MismatchError(f"{name}: tensor is {tuple(left.shape)}, the dense one {tuple(weight.shape)}")
        n_left, n_kept = (0, 0) if left is None else (left.numel(), int(left.count_nonzero()))
        macs = (macs_before[name] * weight.numel(), macs_now[name] * n_left, macs_now[name] * n_kept)
        shapes = (tuple(weight.shape), None if left is None else tuple(left.shape))
        rows.append(TensorRow(name, weight.numel(), n_kept, *macs, n_bytes.pop(name, unknown), *shapes))
    n_before, n_now = (
        sum(p.numel() for name, p in unwrap(net).named_parameters() if name not in before) for net in (dense, model)
    )
    none = math.nan if inputs is None else 0.0
    rest = TensorRow(REST, n_before, n_now, none, none, none, sum(n_bytes.values(), unknown))
    return TensorTable(tuple(rows), rest)


def _fits(left: Tensor, weight: Tensor) -> bool:
    return left.ndim == weight.ndim and all(n <= m for n, m in zip(left.shape, weight.shape, strict=True))


def _macs(model: nn.Module, inputs: Any) -> Mapping[str, float]:
    """Multiply–adds per weight, by tensor: 0 for one that is not used; NaN without inputs."""
    return defaultdict(lambda: math.nan) if inputs is None else defaultdict(float, count_macs(model, inputs))


def _bytes(ledger: Ledger | None, dense: nn.Module) -> dict[str, float]:
    """The file's bytes by tensor; those of a tied tensor's later names count for its first."""
    if ledger is None:
        return {}
    names = first_names(unwrap(dense))
    first = {name: names[id(tensor)] for name, tensor in unwrap(dense).state_dict(keep_vars=True).items()}
    n_bytes: dict[str, float] = defaultdict(float)
    for name, bits in ledger.by_tensor().items():
        n_bytes[first.get(name, "")] += round(bits / 8)
    return n_bytes
