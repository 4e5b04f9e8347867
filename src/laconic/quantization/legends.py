"""What the integers of a rounded tensor stand for: a legend, which stands before them in a chunk.

One step for all, a step for each row, or values of which they are the indices. `docs/format.md`, "Grid",
"Rows" and "Codebook", is the specification.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.coding.bits import Cursor, varint
from laconic.forms import Form, Method
from laconic.jit import F64, I32, kernel
from laconic.lossless import raw_bytes
from laconic.steps import read_step, read_steps, step_bytes

MOST_VALUES = 1 << 16


class Legend(ABC):
    """What integers stand for.

    Attributes:
        method: how a chunk with this legend is called in the directory.
        part: how its bytes are called in a ledger.
    """

    method: ClassVar[Method]
    part: ClassVar[str]

    @abstractmethod
    def to_bytes(self) -> bytes:
        """What stands before the integers."""

    @classmethod
    @abstractmethod
    def read(cls, form: Form, source: Cursor) -> Legend:
        """The legend of a chunk; FormatError where it violates the specification."""

    @abstractmethod
    def tensor(self, form: Form, q: I32, source: Cursor) -> Tensor:
        """The tensor that flat integers stand for; FormatError where one stands for no number of its type."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """A tensor's integers, and what they stand for.

    Attributes:
        q: an integer for each element, flat.
        legend: `Step`, `RowSteps` or `Values`.
    """

    q: I32
    legend: Legend


@dataclass(frozen=True, eq=False)
class Step(Legend):
    """Each integer times one step, a positive bfloat16."""

    step: float
    method: ClassVar[Method] = Method.GRID
    part: ClassVar[str] = "step"

    def to_bytes(self) -> bytes:
        """The step."""
        return step_bytes(self.step)

    @classmethod
    def read(cls, form: Form, source: Cursor) -> Step:
        """The step, positive and finite."""
        return cls(read_step(form, source))

    def tensor(self, form: Form, q: I32, source: Cursor) -> Tensor:
        """Q × step, none above the type's largest number."""
        return _multiples(form, q, np.array([self.step]), source)


@dataclass(frozen=True, eq=False)
class RowSteps(Legend):
    """Each integer times its row's step, a positive bfloat16.

    Attributes:
        steps: (rows,), the tensor's first dimension; one for a tensor of fewer than two dimensions.
    """

    steps: F64
    method: ClassVar[Method] = Method.ROWS
    part: ClassVar[str] = "steps"

    def to_bytes(self) -> bytes:
        """The steps."""
        return step_bytes(self.steps)

    @classmethod
    def read(cls, form: Form, source: Cursor) -> RowSteps:
        """The steps, positive and finite."""
        return cls(read_steps(form, source, form.n_rows))

    def tensor(self, form: Form, q: I32, source: Cursor) -> Tensor:
        """Q × the row's step, none above the type's largest number."""
        return _multiples(form, q, self.steps, source)


@dataclass(frozen=True, eq=False)
class Values(Legend):
    """Each integer, plus `origin`, is the index of a value.

    Attributes:
        values: (n,), finite and ascending, in the tensor's type.
        origin: the index of the value that 0 stands for.
    """

    values: Tensor
    origin: int
    method: ClassVar[Method] = Method.CODEBOOK
    part: ClassVar[str] = "values"

    def to_bytes(self) -> bytes:
        """Their number, the values, and the origin."""
        return varint(len(self.values)) + bytes(raw_bytes(self.values)) + varint(self.origin)

    @classmethod
    def read(cls, form: Form, source: Cursor) -> Values:
        """The values, finite and ascending, and an origin among them."""
        n = source.varint()
        if not 1 <= n <= MOST_VALUES:
            raise source.error(f"1 to {MOST_VALUES:,} values", f"{n:,}")
        values = torch.frombuffer(bytearray(source.take(n * form.dtype.itemsize)), dtype=form.dtype)
        exact = values.double()
        if not (exact.isfinite().all() and (exact[1:] > exact[:-1]).all()):
            raise source.error("finite values in ascending order", "others")
        origin = source.varint()
        if origin >= n:
            raise source.error(f"an origin below {n:,}", f"{origin:,}")
        return cls(values, origin)

    def tensor(self, form: Form, q: I32, source: Cursor) -> Tensor:
        """The values, none outside the codebook."""
        least, most = int(q.min()) + self.origin, int(q.max()) + self.origin
        if least < 0 or most >= len(self.values):
            raise source.error(f"indices below {len(self.values):,}", f"{least:,} to {most:,}")
        indices = torch.from_numpy(q + np.int32(self.origin))
        return self.values.index_select(0, indices).reshape(form.shape)


LEGENDS: Mapping[Method, type[Legend]] = {kind.method: kind for kind in (Step, RowSteps, Values)}


def on_grid(q: I32, steps: float | F64, dtype: torch.dtype) -> Tensor:
    """The numbers that flat integers stand for, at one step, or at steps for as many rows of equal length."""
    weights = np.empty(q.size, np.float64 if dtype == torch.float64 else np.float32)
    dequantize(q, np.atleast_1d(np.asarray(steps, np.float64)), weights)
    return torch.from_numpy(weights).to(dtype)


def _multiples(form: Form, q: I32, steps: F64, source: Cursor) -> Tensor:
    rows = q.reshape(steps.size, -1)
    peaks = np.maximum(rows.max(1).astype(np.float64), -rows.min(1).astype(np.float64)) * steps
    if peaks.max() > torch.finfo(form.dtype).max:
        raise source.error(f"values up to {torch.finfo(form.dtype).max:.5g}", "a larger q × step")
    return on_grid(q, steps, form.dtype).reshape(form.shape)


@kernel
def dequantize(q: I32, steps: F64, weights: NDArray[Any]) -> None:
    """Fill `weights` with q × the row's step, exact in float64, rounded once to their type."""
    width = q.size // steps.size
    for row in range(steps.size):
        for i in range(row * width, (row + 1) * width):
            weights[i] = np.float64(q[i]) * steps[row]
