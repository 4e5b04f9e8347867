"""ResNets for CIFAR-10, and the published checkpoints of two of them.

The checkpoints are those of ``pytorch_resnet_cifar10``, read from $LACONIC_DATA/checkpoints.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from torch import nn

from laconic.errors import CheckpointError
from laconic.formats import read_checkpoint
from laconic.zoo import ResNet

CHECKPOINTS = {20: "resnet20-12fca82f.th", 32: "resnet32-d509ac18.th"}


def resnet44() -> ResNet:
    """ResNet-44: 658 586 parameters."""
    return ResNet(44)


def resnet56() -> ResNet:
    """ResNet-56: 853 018 parameters."""
    return ResNet(56)


def trained_resnet(depth: int) -> ResNet:
    """The network of a published checkpoint, in evaluation mode."""
    model = ResNet(depth)
    load_checkpoint(model, checkpoint(depth))
    return model.eval()


def checkpoint(depth: int) -> Path:
    """Where the published checkpoint of a depth lies."""
    return Path(os.environ["LACONIC_DATA"]) / "checkpoints" / CHECKPOINTS[depth]


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint's tensors into a model, whose names and shapes they must match exactly.

    Raises:
        CheckpointError: the file is no checkpoint, or one of another model; in the latter case
            the tensors that match may have been loaded.
        OSError: the file cannot be read.
    """
    tensors = read_checkpoint(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        finding = textwrap.shorten(str(error).partition("\n")[2], width=200)
        kind = type(model).__name__
        raise CheckpointError(f"{path}: expected the tensors of {kind}, found {finding}") from error
