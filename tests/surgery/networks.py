"""The conformance list: networks small enough to cut in milliseconds, one of each way of coupling."""

from dataclasses import dataclass
from typing import Any, Callable

import torch
from laconic import zoo
from torch import nn
from torch.nn import functional as F


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
        conv_bn(3, 12), conv_bn(12, 16, groups=4), nn.PReLU(16), nn.ConvTranspose2d(16, 8, 2, 2, groups=2),
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
    """A model, its inputs, and by kind of coupling the names of groups found and of some refused."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    channels: set[str]
    not_channels: set[str]
    heads: set[str] = frozenset()
    not_heads: set[str] = frozenset()
    blocks: set[str] = frozenset()
    not_blocks: set[str] = frozenset()
