"""MiniLM rounded by rate and loss with calibration sentences, without labels.

The loss is the squared error of sentences' embeddings, to first order: each layer's output error on the
calibration sentences times its outputs' squared gradients, and each word's error times its frequency in
their corpus. That foretells too little of words' errors, which are alike wherever a word occurs, so these
count several times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import laconic
from benchmarks.networks import minilm
from laconic.model import Evidence, Objective, Statistic
from laconic.quantization import Curvature, RateLoss, data_bits, layer_error

N_SENTENCES = 1200
WORDS = "bert.embeddings.word_embeddings.weight"
BITS_PER_NAT = 1 / math.log(2)


def save_rounded(path: Path, words_count: float, price: float) -> None:
    """Write the file whose words' errors count so many times, at a price in bits for a squared error of 1."""
    state = minilm.encoder().state_dict()
    laconic.save(state, path, RateLoss(price, _loss(words_count), _observed()), include=list(state))


def _loss(words_count: float) -> Callable[[str, Tensor, Evidence], Curvature]:
    of_words = words_count * _words_sensitivity() * _frequencies()
    length = float(_frequencies().sum())  # of a sentence: sensitivities are means over its words

    def loss(name: str, weight: Tensor, evidence: Evidence) -> Curvature:
        if name == WORDS:
            return Curvature(of_words)
        if name not in evidence.found[Statistic.GRAM]:
            return layer_error(name, weight)
        found = data_bits(name, weight, evidence)
        return Curvature(found.scale * (2 * length / BITS_PER_NAT / evidence.n), found.gram)

    return loss


@cache
def _observed() -> Evidence:
    torch.manual_seed(0)  # of directions
    needs = [Statistic.GRAM, Statistic.SENSITIVITY]
    return laconic.model.observe(minilm.encoder(), minilm.calibration(N_SENTENCES), needs, Objective(_projected))


def _projected(outputs: Tensor, targets: object) -> Tensor:
    """A random direction of each embedding: the mean of its squared gradients is the embedding's."""
    del targets
    return (outputs * torch.randn_like(outputs)).sum(1).mean()


@cache
def _frequencies() -> Tensor:
    """How often each word occurs in a sentence, one occurrence in all added to each."""
    n_words = len(minilm.encoder().get_parameter(WORDS))
    counts, n_sentences = torch.ones(n_words, dtype=torch.float64), 0
    for inputs, targets in minilm.calibration(10**6):
        tokens = inputs["input_ids"][inputs["attention_mask"].bool()]
        counts += tokens.bincount(minlength=n_words)
        n_sentences += len(targets)
    return counts / n_sentences


@cache
def _words_sensitivity() -> float:
    """The mean squared gradient of an embedding in a random direction by a number of a word's vector."""
    model, found = minilm.encoder(), list[Tensor]()

    def keep(module: object, inputs: object, outputs: Tensor) -> None:
        del module, inputs
        outputs.register_hook(lambda gradient: found.append(gradient.square().mean()))

    model.get_submodule(WORDS.removesuffix(".weight")).register_forward_hook(keep)
    for inputs, targets in minilm.calibration(200):
        (_projected(model(**inputs), targets) * len(targets)).backward()
    return float(torch.stack(found).mean())
