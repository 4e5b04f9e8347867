"""Small networks of the kinds that people have, each with batches as its users make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from laconic.model import Objective

N = 24  # examples
N_WORDS, LENGTH = 60, 8
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass(frozen=True)
class Everyday:
    """A network, its batches, and what to say of them where the default does not know."""

    model: nn.Module
    batches: list[Any]
    objective: Objective = field(default_factory=Objective)


def batched(*tensors: Any) -> list[Any]:
    return [tuple(tensor[i : i + 8] for tensor in tensors) for i in range(0, N, 8)]


def mappings(**tensors: Tensor) -> list[Any]:
    return [{name: tensor[i : i + 8] for name, tensor in tensors.items()} for i in range(0, N, 8)]


def images(size: int = 12) -> Tensor:
    return torch.randn(N, 3, size, size)


def words() -> Tensor:
    return torch.randint(3, N_WORDS, (N, LENGTH))


def _config(kind: str, **options: Any) -> Any:
    return getattr(transformers, kind)(**options)


class _Last(nn.Module):
    """A recurrent layer, of whose outputs only the states are kept."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(N_WORDS, 16), layer

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.embed(ids))[0]


def classification() -> Everyday:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 5))
    return Everyday(model, batched(images(), torch.randint(0, 5, (N,))))


def segmentation() -> Everyday:
    masks = torch.randint(0, 4, (N, 12, 12))
    masks[:, 0] = 255
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, padding=1))
    return Everyday(model, batched(images(), masks), Objective(ignore_index=255))


class _Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten())
        self.boxes, self.logits = nn.Linear(200, 4), nn.Linear(200, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.features(x)
        return {"pred_boxes": self.boxes(found), "pred_classes": self.logits(found)}


def detection() -> Everyday:
    def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        of_boxes = F.l1_loss(outputs["pred_boxes"], targets["boxes"], reduction="none").mean(1)
        return of_boxes + F.cross_entropy(outputs["pred_classes"], targets["labels"], reduction="none")

    boxes, labels = torch.rand(N, 4), torch.randint(0, 3, (N,))
    batches = [(x, {"boxes": b, "labels": y}) for x, b, y in batched(images(), boxes, labels)]
    return Everyday(_Detector(), batches, Objective(loss))


def regression() -> Everyday:
    x = torch.randn(N, 10)
    return Everyday(nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1)), batched(x, x.sum(1)))


def several_labels() -> Everyday:
    targets = torch.rand(N, 6).round()
    return Everyday(nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 6)), batched(torch.randn(N, 10), targets))


def bert(head: str, labels: Tensor, **options: Any) -> Everyday:
    config = _config("BertConfig", **SMALL, vocab_size=N_WORDS, max_position_embeddings=16, **options)
    model = getattr(transformers, f"BertFor{head}")(config)
    ids = words()
    return Everyday(model, mappings(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels))


def token_classification() -> Everyday:
    labels = torch.randint(0, 5, (N, LENGTH)).masked_fill(torch.rand(N, LENGTH) < 0.3, -100)
    return bert("TokenClassification", labels, num_labels=5)


def masked_language_model() -> Everyday:
    return bert("MaskedLM", words().masked_fill(torch.rand(N, LENGTH) < 0.7, -100))


def sentence_classification() -> Everyday:
    found = bert("SequenceClassification", torch.randint(0, 3, (N,)), num_labels=3)
    pairs = [({k: v for k, v in batch.items() if k != "labels"}, batch["labels"]) for batch in found.batches]
    return Everyday(found.model, pairs)


def gpt2() -> Everyday:
    config = _config("GPT2Config", n_embd=32, n_layer=2, n_head=4, vocab_size=N_WORDS, n_positions=16)
    config.bos_token_id = config.eos_token_id = 0
    ids = words()
    return Everyday(transformers.GPT2LMHeadModel(config), mappings(input_ids=ids, labels=ids))


def llama() -> Everyday:
    config = _config("LlamaConfig", **SMALL, vocab_size=N_WORDS, num_key_value_heads=2, tie_word_embeddings=True)
    ids = words()
    return Everyday(transformers.LlamaForCausalLM(config), mappings(input_ids=ids, labels=ids))


def experts() -> Everyday:
    options = {"num_key_value_heads": 2, "num_local_experts": 4}
    ids = words()
    model = transformers.MixtralForCausalLM(_config("MixtralConfig", **SMALL, **options, vocab_size=N_WORDS))
    return Everyday(model, mappings(input_ids=ids, labels=ids))


def sequence_to_sequence() -> Everyday:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": N_WORDS}
    model = transformers.T5ForConditionalGeneration(_config("T5Config", **sizes, decoder_start_token_id=0))
    return Everyday(model, mappings(input_ids=words(), labels=words()))


def lstm_tagger() -> Everyday:
    layer = nn.LSTM(16, 24, num_layers=2, bidirectional=True, batch_first=True)
    model = nn.Sequential(_Last(layer), nn.Linear(48, 5))
    return Everyday(model, batched(words(), torch.randint(0, 5, (N, LENGTH))))


def gru() -> Everyday:
    model = nn.Sequential(_Last(nn.GRU(16, 24, batch_first=True)), nn.Flatten(), nn.Linear(24 * LENGTH, 3))
    return Everyday(model, batched(words(), torch.randint(0, 3, (N,))))


class _Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(N_WORDS, 32), nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
        self.head = nn.Linear(32, N_WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.body(self.embed(source), self.embed(target)))


def transformer() -> Everyday:
    return Everyday(_Translator(), batched(words(), words(), words()))


def vocoder() -> Everyday:
    normed = parametrizations.weight_norm
    model = nn.Sequential(
        normed(nn.Conv1d(8, 16, 3, padding=1)), nn.LeakyReLU(), normed(nn.ConvTranspose1d(16, 1, 4, 2, 1))
    )
    return Everyday(model, batched(torch.randn(N, 8, 10), torch.randn(N, 1, 20)))


def autoencoder() -> Everyday:
    x = torch.randn(N, 20)
    return Everyday(nn.Sequential(nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 20)), batched(x, x))


class _Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (self.body(left) * self.body(right)).sum(1)


def siamese() -> Everyday:
    return Everyday(_Siamese(), batched(torch.randn(N, 10), torch.randn(N, 10), torch.randint(0, 2, (N,))))


NETWORKS: dict[str, Callable[[], Everyday]] = {
    "classification": classification,
    "segmentation": segmentation,
    "detection, outputs in a mapping": detection,
    "regression": regression,
    "several labels": several_labels,
    "BERT, sentences (labels beside)": sentence_classification,
    "BERT, tokens": token_classification,
    "BERT, masked": masked_language_model,
    "GPT-2, tied": gpt2,
    "Llama, tied": llama,
    "Mixtral": experts,
    "T5": sequence_to_sequence,
    "LSTM tagger": lstm_tagger,
    "GRU": gru,
    "nn.Transformer": transformer,
    "weight-normed vocoder": vocoder,
    "autoencoder": autoencoder,
    "Siamese": siamese,
}
