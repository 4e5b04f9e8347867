"""A network as the file that it becomes has it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

import laconic
from laconic.quantization import Quantizer
from laconic.surgery import Plan

M = TypeVar("M", bound=nn.Module)


def decoded(
    model: nn.Module | Mapping[str, Tensor],
    into: M,
    quantizer: Quantizer | None = None,
    include: Iterable[str] | None = None,
    plan: Plan | None = None,
) -> tuple[M, int]:
    """`into` with what the file of `model` decodes to, in evaluation mode, and the file's length.

    Without a quantizer every number is exact.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lac"
        n_bytes = laconic.save(model, path, quantizer, include, plan=plan)
        return laconic.load(path, into=into).eval(), n_bytes
