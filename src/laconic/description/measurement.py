"""One network as its file decodes: the record that all comparisons of networks share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from laconic.description.ledger import Ledger


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
        ledger: where the bits went.
    """

    name: str = ""
    n_bytes: float = math.nan
    score: float = math.nan
    data_bits: float = math.nan
    sparsity: float = math.nan
    n_parameters: float = math.nan
    n_macs: float = math.nan
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
