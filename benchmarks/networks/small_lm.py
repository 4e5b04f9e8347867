"""A small Llama with tied embeddings, trained on Shakespeare's plays ($LACONIC_DATA/text) by pairs of bytes (BPE).

The first nine tenths of the text are trained on, of the rest the first half is for choosing and the second for judging.
"""

from __future__ import annotations

import os
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

import laconic

VOCABULARY, TOKENS, BATCH = 2048, 128, 16
EPOCHS, LR = 3, 3e-3
Batch = dict[str, Tensor]


@cache
def windows() -> dict[str, Tensor]:
    """The text's ``train``, ``choose`` and ``judge`` parts, (windows, tokens)."""
    from tokenizers import ByteLevelBPETokenizer

    text = (Path(os.environ["LACONIC_DATA"]) / "text" / "tinyshakespeare.txt").read_text()
    n = len(text)
    parts = {"train": text[: n * 9 // 10], "choose": text[n * 9 // 10 : n * 19 // 20], "judge": text[n * 19 // 20 :]}
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(parts["train"].splitlines(keepends=True), VOCABULARY, show_progress=False)
    found = {name: torch.tensor(tokenizer.encode(part).ids) for name, part in parts.items()}
    return {name: ids[: len(ids) // TOKENS * TOKENS].reshape(-1, TOKENS) for name, ids in found.items()}


def batches(part: str, seed: int | None = None) -> list[Batch]:
    """Batches of a part's windows; with a seed, in an order drawn by it."""
    found = windows()[part]
    if seed is not None:
        found = found[torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))]
    return [{"input_ids": ids, "labels": ids} for ids in found.split(BATCH)]


def network() -> nn.Module:
    """Untrained: four layers, a million parameters, a quarter of them in the table."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4)
    config.update({"vocab_size": VOCABULARY, "max_position_embeddings": TOKENS, "tie_word_embeddings": True})
    config.use_cache = False
    return LlamaForCausalLM(config)


def trained(seed: int) -> nn.Module:
    """In evaluation mode."""
    torch.manual_seed(seed)
    model = network()
    adam = partial(torch.optim.AdamW, lr=LR, weight_decay=0.1)
    laconic.train(model, batches("train", seed), laconic.Training(EPOCHS, adam, seed=seed))
    return model.eval()


def loss(model: nn.Module, part: str = "judge") -> float:
    """Nats a token."""
    return laconic.evaluate(model, batches(part)).loss
