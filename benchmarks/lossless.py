"""Lossless coding of MiniLM-L6 and of a fine-tuned ResNet-20's difference; zipnn and zstd if installed.

Speeds are by the processor time of one thread, of coding and decoding in memory, after a warm-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import cifar, minilm
from benchmarks.common import write_result
from laconic import Training, codec, train
from laconic.checkpoints import read_checkpoint

REPEATS = 5
LEARNING_RATES = (1e-3, 1e-4)
N_IMAGES = 25_600  # 200 steps


def main() -> None:
    torch.set_num_threads(1)
    tensors = read_checkpoint(minilm.folder() / "model.safetensors")
    weights = {name: t for name, t in tensors.items() if t.is_floating_point()}
    results: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        results[f"minilm.{kind}"] = lossless({name: t.to(dtype) for name, t in weights.items()}, kind)
    parent = cifar.resnet20().state_dict()
    for lr in LEARNING_RATES:
        child = fine_tuned(lr)
        for dtype in (torch.float32, torch.bfloat16):
            kind = str(dtype).removeprefix("torch.")
            pair = (_floats(child, dtype), _floats(parent, dtype))
            results[f"resnet20.{lr:g}.{kind}"] = difference(*pair, kind)
    write_result(__file__, results)


def fine_tuned(lr: float) -> Mapping[str, Tensor]:
    model = cifar.resnet20()
    optimizer = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    train(model, cifar.drawn(0, N_IMAGES).batches(cifar.BATCH, shuffle=True), Training(1, optimizer))
    return model.state_dict()


def _floats(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: t.to(dtype).contiguous() for name, t in state.items() if t.is_floating_point()}


def lossless(state: Mapping[str, Tensor], kind: str) -> dict[str, float]:
    n_bytes = sum(t.nbytes for t in state.values())
    encode, decode, chunks = [], [], []
    for _ in range(REPEATS):
        start = time.thread_time()
        coded = {name: codec.encode(name, t, None) for name, t in state.items()}
        encode.append(time.thread_time() - start)
        chunks = [(form, b"".join(pieces)) for form, pieces in coded.values()]
        start = time.thread_time()
        for form, chunk in chunks:
            codec.decode(form, chunk)
        decode.append(time.thread_time() - start)
    raw = b"".join(t.reshape(-1).view(torch.uint8).numpy().tobytes() for t in state.values())
    return {
        "share": sum(len(chunk) for _, chunk in chunks) / n_bytes,
        "encode_megabytes_per_second": n_bytes / min(encode) / 1e6,
        "decode_megabytes_per_second": n_bytes / min(decode) / 1e6,
        **_zipnn(raw, kind),
    }


def difference(child: Mapping[str, Tensor], parent: Mapping[str, Tensor], kind: str) -> dict[str, float]:
    coded = [codec.encode(name, t, None, parent[name])[1] for name, t in child.items()]
    words = np.uint32 if kind == "float32" else np.uint16
    old, new = (
        np.concatenate([t.reshape(-1).view(torch.uint8).numpy() for t in state.values()]).view(words)
        for state in (parent, child)
    )
    xor = new ^ old
    return {
        "share": sum(map(len, (piece for pieces in coded for piece in pieces))) / new.nbytes,
        "unchanged": float((new == old).mean()),
        **_zipnn(xor.tobytes(), kind),
        **_zstd(xor),
    }


def _zipnn(raw: bytes, kind: str) -> dict[str, float]:
    try:
        from zipnn import ZipNN  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    coder = ZipNN(bytearray_dtype=kind, threads=1)
    coded = coder.compress(bytearray(raw))
    encode = _seconds(lambda: coder.compress(bytearray(raw)))
    decode = _seconds(lambda: coder.decompress(coded))
    return {
        "zipnn_share": len(coded) / len(raw),
        "zipnn_encode_megabytes_per_second": len(raw) / encode / 1e6,
        "zipnn_decode_megabytes_per_second": len(raw) / decode / 1e6,
    }


def _zstd(words: Any) -> dict[str, float]:
    """The best of levels 19 and 22, of words as they are and with their bytes in planes."""
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    planes = np.ascontiguousarray(words.view(np.uint8).reshape(-1, words.itemsize).T)
    coders = [zstandard.ZstdCompressor(level=level) for level in (19, 22)]
    lengths = [len(coder.compress(data.tobytes())) for coder in coders for data in (words, planes)]
    return {"zstd_share": min(lengths) / words.nbytes}


def _seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


if __name__ == "__main__":
    main()
