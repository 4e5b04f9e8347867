"""The conformance list: networks small enough to cut in milliseconds, one of each way of coupling."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from laconic import zoo


def conv_bn(n_in, n_out, groups=1, stride=1):
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(n_out), nn.ReLU6()
    )


class Inverted(nn.Module):
    """MobileNetV2's block: expand, filter each channel by itself, project, add."""

    def __init__(self, n_in, n_out, n_hidden):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(n_in, n_hidden, 1), nn.BatchNorm2d(n_hidden), nn.ReLU6())
        self.depthwise = conv_bn(n_hidden, n_hidden, groups=n_hidden)
        self.project = nn.Sequential(nn.Conv2d(n_hidden, n_out, 1, bias=False), nn.BatchNorm2d(n_out))
        self.adds = n_in == n_out

    def forward(self, x):
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.adds else out


def mobilenet():
    return nn.Sequential(
        conv_bn(3, 8), Inverted(8, 12, 16), Inverted(12, 12, 24), Inverted(12, 12, 24),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def grouped():
    """ResNeXt's kind of convolution, and a transposed one, also grouped."""
    return nn.Sequential(
        conv_bn(3, 12), conv_bn(12, 16, groups=4)[:2], nn.PReLU(16), nn.ConvTranspose2d(16, 8, 2, 2, groups=2, bias=False),
        nn.InstanceNorm2d(8, affine=True), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * 16 * 16, 5),
    )  # fmt: skip


class DenseNet(nn.Module):
    """Each layer reads everything before it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8 + 6 * i) for i in range(4)])
        self.convs = nn.ModuleList([nn.Conv2d(8 + 6 * i, 6, 3, padding=1) for i in range(3)])
        self.head = nn.Linear(8 + 6 * 3, 5)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.head(F.relu(self.norms[-1](x)).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = conv_bn(3, 8), conv_bn(8, 12, stride=2)
        self.middle = conv_bn(12, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Sequential(conv_bn(16, 8), nn.Conv2d(8, 2, 1))

    def forward(self, x):
        first = self.down1(x)
        return {"segments": self.out(torch.cat([self.up(self.middle(self.down2(first))), first], 1))}


class TiedEmbedding(nn.Module):
    """Words in, words out, by the same table; no normalisation between."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.hidden = nn.Linear(16, 24)
        self.back = nn.Linear(24, 16)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        return self.out(x + self.back(self.hidden(x).relu()))


def bert():
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(
        BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                   intermediate_size=48, max_position_embeddings=16, tie_word_embeddings=True)
    )  # fmt: skip


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=8,
                    num_key_value_heads=4, intermediate_size=48, max_position_embeddings=16, tie_word_embeddings=True)
    )  # fmt: skip


def encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)


def images(size=8, channels=3):
    return lambda: torch.randn(4, channels, size, size)


def tokens():
    return {"input_ids": torch.randint(0, 50, (3, 7))}


@dataclass(frozen=True)
class Network:
    """A model and its inputs; by kind of coupling, the groups it has and, with the reason, those it cannot have."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    channels: Mapping[str, int]
    not_channels: Mapping[str, str]
    heads: Mapping[str, int] = field(default_factory=dict)
    not_heads: Mapping[str, str] = field(default_factory=dict)
    blocks: Mapping[str, int] = field(default_factory=dict)
    not_blocks: Mapping[str, str] = field(default_factory=dict)


OUTPUT, NORM, HEADS, TIED = ("shape of the model's outputs", "normalises over it", "see `heads`", "does not run")
LAYER, STEM = "bert.encoder.layer", "model.layers"
NOT_IDENTITY = "not the identity"


NETWORKS = {
    "lenet5": Network(
        zoo.lenet5, images(28, 1), channels={"conv1": 20, "conv2": 50, "fc1": 500}, not_channels={"fc2": OUTPUT}
    ),
    "resnet20": Network(
        zoo.resnet20,
        images(16),
        channels={f"layer{i}.{j}.conv1": 8 << i for i in (1, 2, 3) for j in range(3)},
        not_channels={"conv1": "its outputs differ", "linear": OUTPUT},
        blocks={f"layer{i}.{j}": 1 for i in (1, 2, 3) for j in range(3) if (i, j) not in ((2, 0), (3, 0))},
    ),
    "mobilenet": Network(
        mobilenet,
        images(),
        channels={"0.0": 8, "1.expand.0": 16, "1.project.0": 12, "2.expand.0": 24, "3.expand.0": 24},
        not_channels={"6": OUTPUT},
        blocks={"2": 1, "3": 1},
        not_blocks={"1.depthwise": NOT_IDENTITY},
    ),
    "grouped": Network(grouped, images(), channels={"0.0": 3, "1.0": 4, "3": 4, "5": 6}, not_channels={"7": OUTPUT}),
    "densenet": Network(
        DenseNet,
        images(),
        channels={"stem": 8, "convs.0": 6, "convs.1": 6, "convs.2": 6},
        not_channels={"head": OUTPUT},
    ),
    "unet": Network(
        UNet,
        images(),
        channels={"down1.0": 8, "down2.0": 12, "middle.0": 16, "up": 8, "out.0.0": 8},
        not_channels={"out.1": OUTPUT},
    ),
    "tied embedding": Network(
        TiedEmbedding,
        lambda: (tokens()["input_ids"],),
        channels={"embed": 16, "hidden": 24},
        not_channels={"out": TIED},
    ),
    "bert": Network(
        bert,
        tokens,
        channels={f"{LAYER}.{i}.intermediate.dense": 48 for i in (0, 1)},
        not_channels={
            "bert.embeddings.word_embeddings": NORM,
            f"{LAYER}.0.attention.self.query": HEADS,
            f"{LAYER}.1.attention.self.value": HEADS,
            f"{LAYER}.1.output.dense": NORM,
            "cls.predictions.decoder": TIED,
        },
        heads={f"{LAYER}.{i}.attention.self": 4 for i in (0, 1)},
        not_blocks={f"{LAYER}.0": NOT_IDENTITY, f"{LAYER}.1": NOT_IDENTITY},
    ),
    "llama": Network(
        llama,
        tokens,
        channels={f"{STEM}.{i}.mlp.gate_proj": 48 for i in (0, 1)},
        not_channels={
            "model.embed_tokens": NORM,
            f"{STEM}.0.self_attn.k_proj": HEADS,
            f"{STEM}.1.mlp.down_proj": NORM,
            "lm_head": TIED,
        },
        heads={f"{STEM}.{i}.self_attn": 4 for i in (0, 1)},
        blocks={f"{STEM}.{i}": 1 for i in (0, 1)},
    ),
    "transformer encoder": Network(
        encoder,
        lambda: torch.randn(3, 5, 16),
        channels={"layers.0.linear1": 32, "layers.1.linear1": 32},
        not_channels={"layers.0.linear2": NORM, "layers.0.self_attn": "packs its weights"},
        not_heads={"layers.0.self_attn": "packs its projections"},
        not_blocks={"layers.0": NOT_IDENTITY},
    ),
}
