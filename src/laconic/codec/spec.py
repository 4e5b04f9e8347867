"""What a file's directory tells about a tensor, and the types that a file holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch

from laconic.coding.layout import Layout

# By their numbers, which `docs/format.md` fixes.
GRID_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
DTYPES = (*GRID_DTYPES, *_INTEGERS, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2)


class Method(IntEnum):
    """How a chunk holds its tensor, or what else it holds."""

    EXACT = 0
    GRID = 1
    TIED = 2
    PLAN = 3
    PLANES = 4
    DELTA = 5
    PARENT = 6
    CODEBOOK = 7
    ROWS = 8


@dataclass(frozen=True)
class TensorSpec:
    """What the directory tells about a tensor: enough to decode its chunk."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    method: Method

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of the decoded tensor."""
        return self.numel * self.dtype.itemsize

    @property
    def layout(self) -> Layout:
        """The layout of the tensor, which is not empty."""
        return Layout.of(self.shape)
