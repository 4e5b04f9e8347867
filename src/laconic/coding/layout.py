"""How a tensor's integers lie, which is all that the coders know of the tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Integers in rows of equal length; the rows of a convolution consist of kernels."""

    n_rows: int  # the first dimension of a tensor of two or more, else 1
    n_columns: int  # integers in a row
    kernel: tuple[int, ...] = ()  # the tensor's dimensions from the third on

    @classmethod
    def of(cls, shape: Sequence[int]) -> Layout:
        """The layout of a tensor that is not empty."""
        n_rows = shape[0] if len(shape) > 1 else 1
        return cls(n_rows, math.prod(shape) // n_rows, tuple(shape[2:]))

    @property
    def n(self) -> int:
        """Number of integers."""
        return self.n_rows * self.n_columns

    @property
    def n_kernel(self) -> int:
        """Integers in a kernel; 1 if there are no kernels."""
        return math.prod(self.kernel)

    @property
    def n_line(self) -> int:
        """Integers in a line: the innermost dimension of a kernel, or a row of a matrix."""
        return self.kernel[-1] if self.n_kernel > 1 else self.n_columns

    @property
    def n_predicting(self) -> int:
        """Number of consecutive integers that predict each other: those of a kernel, or of a row."""
        return self.n_kernel if self.n_kernel > 1 else self.n_columns
