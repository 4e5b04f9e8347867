"""Files beside the peers', in one run, on one thread, in an hour.

Sections: identical, equal_error, lossless, delta, overhead; by default all. Each adds its figures to
codec.json. Sizes are of whole files with all side information; times are medians of $REPEATS runs and, but
for NNCodec's or where they are said to be in memory, include writing the file (ours with fsync) and reading
it, ours to floats. NNCodec and the lossless coders run in environments of their own (`make peers`):
$LACONIC_NNCODEC and $LACONIC_PEERS name their interpreters.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

import laconic
from benchmarks import peers
from benchmarks.command_line import command_line
from benchmarks.networks import cifar, minilm
from benchmarks.plots.rate_distortion import figure
from benchmarks.plots.style import save_figure
from benchmarks.record_keeping import read_results, write_result
from benchmarks.timing import timed
from laconic import zoo
from laconic.codec.tensor import decode_tensor, encode_tensor
from laconic.file import FileOptions
from laconic.formats import read_checkpoint
from laconic.quantization import Curvature, PerTensorScale, RateLoss, Rounded

REPEATS = int(os.environ.get("REPEATS", "5"))
QPS = range(-30, -17, 2)
Arrays = Mapping[str, NDArray[Any]]


def minilm_floats() -> dict[str, Tensor]:
    """The 22.7 M numbers of all-MiniLM-L6-v2."""
    tensors = read_checkpoint(minilm.folder() / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def resnet20_floats(model: nn.Module | None = None) -> dict[str, Tensor]:
    state = (model or cifar.resnet20()).state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


@dataclass(frozen=True)
class Given:
    """A quantizer for tensors whose integers are known.

    Attributes:
        integers: by name.
        scale: of all of them, a bfloat16 number.
    """

    integers: Arrays
    scale: float

    def tensors(self) -> dict[str, Tensor]:
        """What the integers stand for."""
        return {name: torch.from_numpy(q).float() * self.scale for name, q in self.integers.items()}

    def per_tensor(self, tensors: Mapping[str, Tensor]) -> dict[str, _Known]:
        """The integers of each."""
        return {name: _Known(Rounded(self.integers[name].reshape(-1), PerTensorScale(self.scale))) for name in tensors}

    def save(self, path: Path) -> int:
        """Write the file of these integers; its length."""
        return laconic.save(self.tensors(), path, self, include=list(self.integers))


@dataclass(frozen=True)
class _Known:
    found: Rounded

    def rounded(self, tensor: Tensor) -> Rounded:
        del tensor
        return self.found


# The same integers, lossless


def sparse_integers() -> NDArray[np.int32]:
    """10 M integers, 90 % zeros, Gaussian and Laplace rows in turn, of scales that vary by a factor of 16."""
    rng = np.random.default_rng(0)
    shape = (2500, 4000)
    scale = 2.0 ** rng.uniform(-1.5, 2.5, (shape[0], 1))
    even = np.arange(shape[0])[:, None] % 2 == 0
    drawn = np.where(even, rng.normal(0, 1, shape), rng.laplace(0, math.sqrt(0.5), shape)) * scale
    size = np.maximum(1, np.rint(np.abs(drawn)))
    return (np.sign(drawn) * size * (rng.random(shape) < 0.1)).astype(np.int32)


def identical() -> dict[str, Any]:
    matrices = {name: t.numpy() for name, t in minilm_floats().items() if t.ndim > 1}
    cases: dict[str, Arrays] = {
        f"MiniLM, step 2^-{k}": {n: np.rint(w * 2.0**k).astype(np.int32) for n, w in matrices.items()}
        for k in (8, 7, 6, 5)
    }
    cases["synthetic, 90 % zeros"] = {"weight": sparse_integers()}
    return {name: _identical(integers) for name, integers in cases.items()}


def _identical(integers: Arrays) -> dict[str, Any]:
    theirs, decoded = peers.run("nncodec_peer", integers, use_dq=False, repeats=REPEATS)
    _check_equal(integers, decoded)
    mine, back = timed(Given(integers, 1.0).save, laconic.load, REPEATS)
    _check_equal(integers, {name: tensor.numpy() for name, tensor in back.items()})
    return {
        "integers": sum(q.size for q in integers.values()),
        "laconic": mine,
        "nncodec": theirs,
        "bytes_ratio": mine["bytes"] / theirs["bytes"],
        "times_faster_encoding": theirs["encode_seconds"] / mine["encode_seconds"],
        "times_faster_decoding": theirs["decode_seconds"] / mine["decode_seconds"],
    }


def _check_equal(integers: Arrays, decoded: Arrays) -> None:
    wrong = [name for name, q in integers.items() if not np.array_equal(q, decoded[name])]
    assert not wrong and len(decoded) == len(integers), f"{wrong}: decoded to other integers"


# From floats to files of equal total squared error, without data


def ours(state: Mapping[str, Tensor], most_error: float, path: Path) -> int:
    """Write `state` with at most this squared error, rounded by rate and squared error at one price for all.

    Errors of tensors of one dimension count a hundred times, since the network minds them more.
    """

    def loss(name: str, tensor: Tensor, _: object) -> Curvature:
        return Curvature(1.0 if tensor.ndim > 1 else 100.0)

    def written(price: float) -> tuple[int, float]:
        n_bytes = laconic.save(state, path, RateLoss(price, loss), include=list(state))
        decoded = laconic.load(path)
        return n_bytes, sum(float((decoded[n].double() - t.double()).square().sum()) for n, t in state.items())

    low, high = 1.0, 1e9
    while high > 1.003 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if written(middle)[1] <= most_error else (middle, high)
    return written(high)[0]


def equal_error() -> dict[str, Any]:
    curves = {"MiniLM": _curve(minilm_floats()), "ResNet-20": _curve(resnet20_floats())}
    save_figure("rate-distortion", figure, curves)
    return curves


def _curve(state: Mapping[str, Tensor]) -> list[dict[str, float]]:
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    energy = sum(float(tensor.double().square().sum()) for tensor in state.values())
    n_weights = sum(tensor.numel() for tensor in state.values())
    points = []
    for qp in QPS:
        theirs, decoded = peers.run("nncodec_peer", arrays, qp=qp, use_dq=True, repeats=1)
        error = squared_error(state, {name: torch.from_numpy(array) for name, array in decoded.items()})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ours.lac"
            n_bytes = ours(state, error, path)
            reached = squared_error(state, laconic.load(path))
        assert reached <= error * (1 + 1e-6), f"qp {qp}: {reached} above {error}"
        point = {"qp": qp, "weights": n_weights, "relative_squared_error": error / energy}
        point |= {"nncodec_bytes": theirs["bytes"], "laconic_bytes": n_bytes}
        points.append(point | {"bytes_ratio": n_bytes / theirs["bytes"], "error_ratio": reached / error})
        print(points[-1], file=sys.stderr)
    return points


def squared_error(state: Mapping[str, Tensor], decoded: Mapping[str, Tensor]) -> float:
    """Over all tensors."""
    return sum(float((t.double() - decoded[name].double()).square().sum()) for name, t in state.items())


# Floats, lossless


def lossless() -> dict[str, Any]:
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {name: _lossless(name, dtype) for name, dtype in dtypes.items()}


def _lossless(name: str, dtype: torch.dtype) -> dict[str, Any]:
    state = {key: tensor.to(dtype) for key, tensor in minilm_floats().items()}
    with tempfile.TemporaryDirectory() as folder:
        save_file(state, Path(folder) / "plain.safetensors")
        plain = np.fromfile(Path(folder) / "plain.safetensors", np.uint8)
    found: dict[str, Any] = {"safetensors_bytes": plain.size}
    for threads in (1, 2):
        options = {"dtype": name, "threads": threads, "zstd_levels": [3], "repeats": REPEATS}
        theirs, _ = peers.run("lossless_peer", {"plain": plain}, **options)
        torch.set_num_threads(threads)
        work = FileOptions(threads)
        save = partial(laconic.save, state, quantizer=None, work=work)
        mine, back = timed(save, partial(laconic.load, work=work), REPEATS)
        mine |= _in_memory(state, work)
        assert all(torch.equal(tensor, back[key]) for key, tensor in state.items())
        for coder, figures in {"laconic": mine, **theirs}.items():
            found.setdefault(coder, {"share": figures["bytes"] / plain.size})[f"{threads} threads"] = {
                key.replace("seconds", "MB_per_second"): plain.size / 1e6 / seconds
                for key, seconds in figures.items()
                if "seconds" in key
            }
    torch.set_num_threads(1)
    return found


def _in_memory(state: Mapping[str, Tensor], work: FileOptions) -> dict[str, float]:
    """Median seconds of coding all tensors and of decoding them, as a file does it."""

    def encoded(name: str) -> tuple[Any, bytes]:
        spec, pieces = encode_tensor(name, state[name], None, run=run)
        return spec, b"".join(pieces)

    def each(task: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(work.in_order(task, zip(items, lengths, strict=True), sum(lengths)))

    lengths = [tensor.nbytes for tensor in state.values()]
    rows = []
    with work.blocks() as run:
        for _ in range(REPEATS):
            start = time.perf_counter()
            chunks = each(encoded, state)
            middle = time.perf_counter()
            each(lambda coded: decode_tensor(*coded, run=run), chunks)
            rows.append((middle - start, time.perf_counter() - middle))
    encode, decode = np.median(rows, axis=0).tolist()
    return {"encode_seconds_in_memory": encode, "decode_seconds_in_memory": decode}


# A fine-tuned network's difference from its parent, lossless


def delta() -> dict[str, Any]:
    """ResNet-20 after 200 steps, at a large and a small rate; the peers code the bits that changed (XOR)."""
    parent = resnet20_floats()
    found = {}
    for lr in (1e-3, 1e-4):
        child = fine_tuned(lr)
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            new, old = ({key: t.to(dtype) for key, t in state.items()} for state in (child, parent))
            found[f"learning rate {lr:g}, {name}"] = _delta(new, old, name)
    return found


def fine_tuned(lr: float) -> dict[str, Tensor]:
    model, images = cifar.resnet20(), cifar.drawn(0, 200 * 128)
    optimizer = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    laconic.train(model, images.batches(128, shuffle=True), laconic.Training(1, optimizer))
    return resnet20_floats(model)


def _delta(child: Mapping[str, Tensor], parent: Mapping[str, Tensor], dtype: str) -> dict[str, Any]:
    new, old = (
        np.concatenate([t.reshape(-1).view(torch.uint8).numpy() for t in state.values()]) for state in (child, parent)
    )
    options = {"dtype": dtype, "threads": 1, "zstd_levels": [19, 22], "repeats": 1}
    theirs, _ = peers.run("lossless_peer", {"plain": new ^ old}, **options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "child.lac"
        n_bytes = laconic.save(child, path, None, base=parent)
        back = laconic.load(path, base=parent)
    assert all(torch.equal(tensor, back[key]) for key, tensor in child.items())
    shares = {name: figures["bytes"] / new.size for name, figures in theirs.items()}
    zipnn = next(share for name, share in shares.items() if name.startswith("zipnn"))
    zstd = min(share for name, share in shares.items() if "zstd" in name)
    mine = n_bytes / new.size
    return {"laconic": mine, **shares, "of_zipnn": mine / zipnn, "of_best_zstd": mine / zstd}


# What a file costs beside its integers


def adaptive_bits(q: NDArray[np.int32]) -> float:
    """Σ −log2 p of integers in order, p = (how often so far + ½) / (how many so far + ½ · alphabet).

    Krichevsky & Trofimov (1981): counts start at ½ for each integer between the smallest and the largest. The
    sum depends on the counts alone, ln Γ(n + m/2) − ln Γ(m/2) − Σ [ln Γ(n_s + ½) − ln Γ(½)] nats. It is the
    length of an ideal adaptive coder that is told alphabet, name, shape and scale for nothing.
    """
    counts = np.bincount(q.ravel() - q.min()).tolist()
    n, m = sum(counts), len(counts)
    each = sum(math.lgamma(count + 0.5) - math.lgamma(0.5) for count in counts)
    return (math.lgamma(n + m / 2) - math.lgamma(m / 2) - each) / math.log(2)


def overhead() -> dict[str, Any]:
    """LeNet-300-100 with 2 000 weights left, in the densities that pruning leaves, and its biases."""
    rng = np.random.default_rng(0)
    n_left = {"fc1.weight": 1100, "fc2.weight": 700, "fc3.weight": 200}
    integers = {}
    for name, tensor in zoo.lenet_300_100().state_dict().items():
        n = n_left.get(name, tensor.numel())
        q = np.zeros(tensor.numel(), np.int32)
        drawn = rng.laplace(0, 4, n)
        size = np.rint(np.abs(drawn)) + (name in n_left)
        q[rng.choice(q.size, n, replace=False)] = np.sign(drawn) * size
        integers[name] = q.reshape(tuple(tensor.shape))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.lac"
        given = Given(integers, 2.0**-5)
        n_bytes = given.save(path)
        assert squared_error(given.tensors(), laconic.load(path)) == 0
        parts = laconic.describe(path).by_part()
    ideal = {name: adaptive_bits(q) / 8 for name, q in integers.items()}
    return {
        "file_bytes": n_bytes,
        "ideal_adaptive_bytes": sum(ideal.values()),
        "overhead_bytes": n_bytes - sum(ideal.values()),
        "file_bytes_by_part": {part: bits / 8 for part, bits in parts.items()},
        "ideal_adaptive_bytes_by_tensor": ideal,
    }


SECTIONS = {section.__name__: section for section in (identical, equal_error, lossless, delta, overhead)}


def main(sections: Sequence[str]) -> None:
    torch.set_num_threads(1)
    for name in sections:
        found = SECTIONS[name]()
        write_result(__file__, {**read_results("codec"), "repeats": REPEATS, name: found})


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="by default all")
    main(parser.parse_args().sections or list(SECTIONS))
