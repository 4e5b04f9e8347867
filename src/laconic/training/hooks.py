"""Hooks on a model that may be compiled."""

from __future__ import annotations

import sys

import torch


def notice_hooks() -> None:
    """Have compiled modules traced anew: what was made of one does not notice hooks that come or go."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
