"""Rate–loss rounding with calibration data and no fine-tuning: sizes of files, and how well they do.

ResNet-20, rounded by each layer's output error on 2 048 training images: accuracy on all CIFAR-10 test images.
MiniLM, by the error of its embeddings as each layer's Gram matrix and outputs' sensitivities foretell it, on 2 400
training sentences of the STS benchmark: scores as `benchmarks.minilm` has them. Files hold everything, also the
numbers of one dimension, rounded too. Three draws of images; one of sentences.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import laconic
from benchmarks import minilm
from benchmarks.cifar import accuracy, drawn, resnet20
from benchmarks.common import once, spread, write_result
from laconic import Curvature, RateLoss, data_bits, layer_error
from laconic.evidence import GRAM, SENSITIVITY, Evidence, observe

SEEDS = (0, 1, 2)
N_IMAGES, N_SENTENCES = 2048, 2400
RESNET_PRICES = (1e6, 1.5e6, 2.5e6)
MINILM_PRICES = (1e5, 1.5e5)


def saved(state: Mapping[str, Tensor], quantizer: RateLoss) -> tuple[int, dict[str, Tensor]]:
    """Bytes of a file with every float rounded, and what it decodes to."""
    floats = [name for name, tensor in state.items() if tensor.is_floating_point()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lac"
        n_bytes = laconic.save(state, path, quantizer, include=floats)
        return n_bytes, laconic.load(path)


def resnet(seed: int) -> dict[str, dict[str, float]]:
    model = resnet20()
    evidence = observe(model, drawn(seed, N_IMAGES).batches(64), [GRAM])
    rows: dict[str, dict[str, float]] = {}
    for price in RESNET_PRICES:
        n_bytes, decoded = saved(model.state_dict(), RateLoss(price, layer_error, evidence))
        model_now = resnet20()
        model_now.load_state_dict(decoded)
        rows[f"{price:g}"] = {"file_bytes": n_bytes, "accuracy": accuracy(model_now)}
    return rows
