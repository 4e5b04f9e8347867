"""MiniLM rounded by rate and loss with calibration sentences, without fine-tuning or labels.

The loss is the squared error of sentences' embeddings, to first order: each layer's output error on the
calibration sentences times its outputs' squared gradients, and each word's error times its frequency in
their corpus. That foretells too little of words' errors, which are alike wherever a word occurs, so these
count several times. Scores are those of `benchmarks.minilm`: people's judgements, and text of another kind.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import laconic
from benchmarks import minilm
from benchmarks.common import once, write_result
from laconic.model import Evidence, Statistic
from laconic.model.evidence import BITS_PER_NAT
from laconic.quantization import Curvature, data_bits, layer_error
from laconic.quantization.rate import Loss

N_SENTENCES = 1200
PRICE = 1e7  # bits for a squared error of 1
WORDS_COUNT = (15, 25, 50)  # times
WORDS = "bert.embeddings.word_embeddings.weight"


def projected(outputs: Tensor, targets: object) -> Tensor:
    """A random direction of each embedding: the mean of its squared gradients is the embedding's."""
    del targets
    return (outputs * torch.randn_like(outputs)).sum(1).mean()


@cache
def frequencies() -> Tensor:
    """How often each word occurs in a sentence, one occurrence in all added to each."""
    n_words = len(minilm.encoder().get_parameter(WORDS))
    counts, n_sentences = torch.ones(n_words, dtype=torch.float64), 0
    for inputs, targets in minilm.calibration(10**6):
        tokens = inputs["input_ids"][inputs["attention_mask"].bool()]
        counts += tokens.bincount(minlength=n_words)
        n_sentences += len(targets)
    return counts / n_sentences


@cache
def words_sensitivity() -> float:
    """The mean squared gradient of an embedding in a random direction by a number of a word's vector."""
    model, found = minilm.encoder(), list[Tensor]()

    def keep(module: object, inputs: object, outputs: Tensor) -> None:
        del module, inputs
        outputs.register_hook(lambda gradient: found.append(gradient.square().mean()))

    model.get_submodule(WORDS.removesuffix(".weight")).register_forward_hook(keep)
    for inputs, targets in minilm.calibration(200):
        (projected(model(**inputs), targets) * len(targets)).backward()
    return float(torch.stack(found).mean())


def loss_of(words_count: float) -> Loss:
    of_words = words_count * words_sensitivity() * frequencies()
    length = float(frequencies().sum())  # of a sentence: sensitivities are means over its words

    def loss(name: str, weight: Tensor, evidence: Evidence) -> Curvature:
        if name == WORDS:
            return Curvature(of_words)
        if name not in evidence.found[Statistic.GRAM]:
            return layer_error(name, weight, evidence)
        found = data_bits(name, weight, evidence)
        return Curvature(found.scale * (2 * length / BITS_PER_NAT / evidence.n), found.gram)

    return loss


@cache
def observed() -> Evidence:
    torch.manual_seed(0)  # of directions
    needs = [Statistic.GRAM, Statistic.SENSITIVITY]
    return laconic.model.observe(minilm.encoder(), minilm.calibration(N_SENTENCES), needs, projected)


def save_rounded(path: Path, words_count: float, price: float = PRICE) -> None:
    evidence, state = observed(), minilm.encoder().state_dict()
    quantizer = laconic.quantization.RateLoss(price, loss_of(words_count), evidence)
    laconic.save(state, path, quantizer, include=list(state))


def run(words_count: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lac"
        save_rounded(path, words_count)
        return minilm.scored(path)


def main() -> None:
    rows = {str(times): once(__file__, run, times) for times in WORDS_COUNT}
    result = {"sentences": N_SENTENCES, "price": PRICE, "dense": minilm.judged(minilm.encoder())}
    write_result(__file__, {**result, "times_words_count": rows})


if __name__ == "__main__":
    main()
