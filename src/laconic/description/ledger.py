"""The ledger: where every bit of a description went.

Hinton & van Camp (1993): the best network minimises *bits to describe the model + bits to describe the data given the
model*. A ledger lists both, row by row. Rows marked ``measured`` are lengths of a file's parts and add up to its length
exactly; the data's row is an ideal code length (Σ −log2 p), which an arithmetic coder reaches to within two bits. Other
rows are expectations: a network of noisy weights has no file (see `laconic.mdl.bits_back`). A `Measurement` is the
record that all comparisons of networks share.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from laconic.core.text import as_text

if TYPE_CHECKING:
    from rich.table import Table

DENSE, BIT_EACH = "dense float32", "one bit an active parameter"  # the references' labels


@dataclass(frozen=True)
class LedgerRow:
    """One entry: `bits` spent on `part` of `tensor` (the empty name: on the file as a whole).

    Attributes:
        measured: whether the bits are the length of a part of a file.
        of_data: whether the bits describe the data, not the model.
    """

    tensor: str
    part: str
    bits: float
    measured: bool = True
    of_data: bool = False


@dataclass(frozen=True)
class Ledger:
    """The bits of a model and of the data given the model.

    Attributes:
        rows: all entries; measured ones add up to the file's length in bits.
        references: bits, by label, that simpler accounts charge for the same model; they enter no total.
        n_examples: number of examples that the data's bits describe; 0 without data.
    """

    rows: tuple[LedgerRow, ...]
    references: Mapping[str, float] = field(default_factory=dict)
    n_examples: int = 0

    @property
    def model_bits(self) -> int:
        """The file's length in bits: the sum of the measured rows."""
        return round(sum(row.bits for row in self.rows if row.measured))

    @property
    def expected_bits(self) -> float:
        """The model's expected bits without a file: an estimate, never a size."""
        return sum(row.bits for row in self.rows if not (row.measured or row.of_data))

    @property
    def data_bits(self) -> float:
        """Σ −log2 p(target | input) over the data, in bits; 0 without data."""
        return sum(row.bits for row in self.rows if row.of_data)

    @property
    def total_bits(self) -> float:
        """Bits for the model, measured or expected, and for the data given the model."""
        return self.model_bits + self.expected_bits + self.data_bits

    def by_tensor(self) -> dict[str, float]:
        """The model's bits by tensor; the empty name stands for the whole file."""
        return self._sums(lambda row: row.tensor)

    def by_part(self) -> dict[str, float]:
        """The model's bits by part: header, directory, tables, classes, weights, escapes and others."""
        return self._sums(lambda row: row.part)

    def _sums(self, key: Any) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for row in self.rows:
            if not row.of_data:
                sums[key(row)] += row.bits
        return dict(sums)

    def to_dict(self) -> dict[str, Any]:
        """The ledger as plain values, for JSON."""
        names = ("model_bits", "expected_bits", "data_bits", "total_bits", "n_examples")
        rows = [vars(row) for row in self.rows]
        return {name: getattr(self, name) for name in names} | {"references": dict(self.references), "rows": rows}

    def __repr__(self) -> str:
        data = f", data: {self.data_bits:,.0f} bits of {self.n_examples:,} examples" if self.n_examples else ""
        return f"Ledger(model: {self.model_bits + self.expected_bits:,.0f} bits in {len(self.rows)} rows{data})"

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title="Description length", show_footer=True)
        table.add_column("", footer="total")
        table.add_column("bits", justify="right", footer=f"{self.total_bits:,.0f}")
        table.add_column("share", justify="right", footer="100 %")
        table.add_column("is")
        estimated = {row.part for row in self.rows if not row.measured}
        for part, bits in self.by_part().items():
            kind = "estimate" if part in estimated else "measured"
            table.add_row(f"model: {part}", f"{bits:,.0f}", self._share(bits), kind)
        if self.n_examples:
            label = f"data: {self.n_examples:,} examples"
            table.add_row(label, f"{self.data_bits:,.0f}", self._share(self.data_bits), "ideal code")
        table.add_section()
        for label, bits in self.references.items():
            table.add_row(label, f"{bits:,.0f}", "", "for reference")
        return table

    def _share(self, bits: float) -> str:
        return f"{bits / self.total_bits:.1%}" if self.total_bits else "–"


@dataclass(frozen=True, eq=False)
class Measurement:
    """A network as its file decodes; NaN for what was not measured. Equality leaves the ledger out.

    Attributes:
        name: what was done to the network, such as ``dense`` or ``90% pruned``.
        n_bytes: length of the file.
        score: the decoded network's, by default its accuracy on test examples.
        data_bits: bits of the training targets, given the decoded network.
        sparsity: fraction of the dense network's compressible weights that are zero or cut away.
        n_parameters: number of parameters that are not zero.
        n_macs: multiply–adds of one example, by the layers' shapes, zeros included.
        score_error: standard error of the score's difference from the original network's, on the same examples.
        ledger: where the bits went.
    """

    name: str = ""
    n_bytes: float = math.nan
    score: float = math.nan
    data_bits: float = math.nan
    sparsity: float = math.nan
    n_parameters: float = math.nan
    n_macs: float = math.nan
    score_error: float = math.nan
    ledger: Ledger | None = field(default=None, repr=False)

    @property
    def total_bits(self) -> float:
        """Bits for the model, and for the data given the model."""
        return 8 * self.n_bytes + self.data_bits

    def __eq__(self, other: object) -> bool:  # field by field, NaN would differ from itself
        return isinstance(other, Measurement) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.to_dict().items()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the ledger and without what was not measured."""
        plain = {key: value for key, value in vars(self).items() if key != "ledger"}
        return {key: value for key, value in plain.items() if key == "name" or not math.isnan(value)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """The inverse of `to_dict`; other keys are ignored; ValueError if a value is not a number."""
        numbers = [key for key in cls.__dataclass_fields__ if key not in ("name", "ledger")]
        found: dict[str, Any] = {key: float(values[key]) for key in numbers if key in values}
        return cls(str(values.get("name", "")), **found)
