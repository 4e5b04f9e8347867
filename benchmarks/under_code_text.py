"""MiniLM trained under the code to embed sentences as the trained network does, without labels: three seeds.

It begins as `benchmarks.calibrated_text` rounds it, and is trained at ever lower prices. Sentences are those
of the STS benchmark's training set; in half of them, at each turn, three words in ten are replaced by any of
the vocabulary, so that words which those sentences lack are worth their bits too. Scores are those of
`benchmarks.minilm`: people's judgements on the dev set, and text of another kind. Files hold all numbers of
the network that they decode to.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

import laconic
from benchmarks import calibrated_text, minilm
from benchmarks.common import once, spread, write_result
from laconic import Shorten, Training
from laconic.shortest import parameters

SEEDS = (0, 1, 2)
WORDS_COUNT = 25
PRICES = (1e8, 5e7, 2.5e7)  # bits for a squared error of 1
EPOCHS, BATCH, LEARNING_RATE, STEPS_LR = 4, 64, 3e-4, 3e-4
OTHER_WORDS = 0.3
FIRST_WORD = 999  # of the vocabulary; those before are marks
ALIKE = 20  # batches that are sorted by length together


@dataclass(frozen=True)
class Sentences:
    """Shuffled batches of sentences' tokens (sentences, tokens), padded with 0, and their embeddings."""

    tokens: list[Tensor]
    teacher: minilm.Encoder

    def __len__(self) -> int:
        return math.ceil(len(self.tokens) / BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = next(self.teacher.parameters()).device
        batches = list[list[int]]()
        for some in torch.randperm(len(self.tokens)).split(ALIKE * BATCH):
            alike = sorted(some.tolist(), key=lambda i: len(self.tokens[i]))
            batches += [alike[at : at + BATCH] for at in range(0, len(alike), BATCH)]
        for turn in torch.randperm(len(batches)):
            ids = self.partly_others(pad_sequence([self.tokens[i] for i in batches[turn]], batch_first=True))
            with torch.no_grad():
                embeddings = self.teacher(ids.to(device))
            yield ids, embeddings

    def partly_others(self, ids: Tensor) -> Tensor:
        """Words of every other sentence replaced at random."""
        replaced = (torch.rand(ids.shape) < OTHER_WORDS) & (ids >= FIRST_WORD)
        replaced[::2] = False
        return torch.where(replaced, torch.randint(FIRST_WORD, self.teacher.n_words, ids.shape), ids)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).mean()


def encoder() -> minilm.Encoder:
    """On the accelerator, if there is one."""
    return minilm.encoder().to(Accelerator().device)


def rounded() -> minilm.Encoder:
    model = minilm.encoder()
    torch.manual_seed(0)
    quantizer = calibrated_text.quantizer(WORDS_COUNT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rounded.lac"
        laconic.save(model, path, quantizer, include=list(model.state_dict()))
        return laconic.load(path, into=model)


def shorten(model: minilm.Encoder, sentences: Sentences, price: float, seed: int) -> None:
    rule = Shorten(price=price * math.log(2), n_cases=1, every=200, lr=STEPS_LR, among=parameters)
    falls = partial(CosineAnnealingLR, T_max=EPOCHS)
    training = Training(EPOCHS, partial(Adam, lr=LEARNING_RATE), squared_error, falls, seed)
    laconic.train(model, sentences, training, [rule])


def run(seed: int) -> dict[str, dict[str, float]]:
    model, teacher, rows = rounded(), encoder(), dict[str, dict[str, float]]()
    exact = minilm.cosines(teacher)
    padded = [ids for batch in minilm.tokenized(minilm.sentences()) for ids in batch["input_ids"]]
    sentences = Sentences([ids[ids != 0] for ids in padded], teacher)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lac"
        for stage, price in enumerate(PRICES):
            shorten(model, sentences, price, 10 * seed + stage)
            n_bytes = laconic.save(model, path, None)
            decoded = laconic.load(path, into=encoder())
            other = minilm.spearman(minilm.cosines(decoded), exact)
            rows[f"{price:g}"] = {
                "file_bytes": n_bytes,
                "judged": minilm.judged(decoded),
                "other_text": other,
            }
    return rows


def main() -> None:
    runs = [once(__file__, run, seed) for seed in SEEDS]
    prices = {
        price: {key: spread(rows[price][key] for rows in runs) for key in first}
        for price, first in runs[0].items()
    }
    choices = {"seeds": SEEDS, "epochs": EPOCHS, "batch": BATCH, "learning_rate": LEARNING_RATE}
    write_result(__file__, {**choices, "dense": minilm.judged(minilm.encoder()), "prices": prices})


if __name__ == "__main__":
    main()
