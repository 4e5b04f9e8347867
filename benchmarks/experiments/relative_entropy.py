"""A network drawn from its posterior, in hardly more bits than bits back promises: the code that decodes.

Sender and receiver draw the same candidates from the prior N(0, s²). The sender picks one with a probability
∝ q/p and sends its number, which takes about KL(q‖p) bits, as there have to be some 2^KL candidates. So the
weights are cut, in a random order, into blocks of few bits. A block is four bits that say how many bits its
number has, and the number; or 15, and then its two halves. Layout, with the lowest byte first: the seed in 4
bytes, how many weights a whole block has in 4, each tensor's s as a float32; then the blocks in bits, the
highest first.

Candidates come from integers: words of Philox4x64 (key: seed and block; counter: the candidate), cut into 16
bits each, index a table of the normal distribution's quantiles in steps of 2⁻¹⁶. An entry could hang on how a
machine rounds a logarithm, so the table's digest is checked. Products and the rounding to float32 are IEEE's:
every machine decodes the same weights.

Limits: nothing lies beyond 4.3 s; a single weight of more than 13 bits is refused. With 2^(⌈KL⌉ + 1)
candidates what is drawn is nearly the posterior's: its variance is 2 % more where weights have 0.1 bits each,
17 % more where they have 1.5. Measured lengths, without the head, are 1.6 to 2.1 times the divergence.

An experiment beside `laconic.mdl.bits_back`, not a method of the file format.

Source: Havasi, Peharz & Hernández-Lobato (2018), "Minimal random code learning".
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.errors import FormatError
from laconic.mdl import Gaussian

MAX_BITS, SPLIT = 14, 15
EXTRA = 1  # bit: twice the candidates that the divergence asks for
HEADER = struct.Struct("<II")
ORDER = 2**64 - 1  # the stream of the order of weights; others are blocks'
WORDS = 4  # of 64 bits for each step of Philox's counter: 16 numbers of 16 bits
TABLE_DIGEST = "ee46eda6f743ea9b2949c72134d6385025bcc7573bb0fba98b3bf40224779880"
Numbers = NDArray[np.float64]
Order = NDArray[np.int64]


def encode(posterior: Mapping[str, Gaussian], seed: int, bits: int = MAX_BITS) -> bytes:
    """Draw a network from `posterior`, and say which.

    Args:
        posterior: Gaussians by name.
        seed: of all that is random, below 2³².
        bits: the most that a block's number may take: up to 2^`bits` candidates are tried for each.

    Raises:
        ValueError: a weight alone needs more bits, or an argument is out of range.
    """
    if not EXTRA < bits <= MAX_BITS:
        raise ValueError(f"bits: expected {EXTRA + 1} to {MAX_BITS}, found {bits}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected 32 bits, found {seed}")
    names, scales, means, variances = _standard(posterior)
    with np.errstate(divide="ignore"):  # a variance of 0 takes infinitely many bits
        needed = 0.5 * (variances + means**2 - 1 - np.log(variances)) / math.log(2)
    worst, most = int(needed.argmax()), bits - EXTRA
    if needed[worst] > most:
        raise ValueError(f"{names[worst]}: expected weights of at most {most} bits, found {needed[worst]:.1f}")
    order = _order(seed, len(means))
    length, parts = _shortest(needed[order], bits)
    written: list[str] = []
    block = 0
    for part, n_bits in parts:
        written.append(f"{n_bits:04b}")
        if n_bits < SPLIT:
            at = order[part]
            chosen = _chosen(means[at], variances[at], seed, block, n_bits)
            written.append(f"{chosen:0{n_bits}b}" if n_bits else "")
            block += 1
    stream = "".join(written)
    stream += "0" * (-len(stream) % 8)
    return HEADER.pack(seed, length) + scales.tobytes() + int(stream, 2).to_bytes(len(stream) // 8, "big")


def decode(data: bytes, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The network that `encode` drew, as float32.

    Args:
        data: what `encode` returned.
        shapes: of the posterior's tensors, by name, in its order.

    Raises:
        FormatError: `data` is cut, or belongs to other shapes.
    """
    head = HEADER.size + 4 * len(shapes)
    if len(data) < head:
        raise FormatError(f"relative entropy code: expected {head} bytes or more, found {len(data)}")
    seed, length = HEADER.unpack_from(data)
    scales = np.frombuffer(data, "<f4", len(shapes), HEADER.size)
    counts = [math.prod(shape) for shape in shapes.values()]
    n = sum(counts)
    stream = "".join(f"{byte:08b}" for byte in data[head:])
    values, order, at, block = np.zeros(n), _order(seed, n), 0, 0
    todo = _whole(n, max(length, 1))[::-1]
    while todo and at + 4 <= len(stream):
        part, n_bits = todo.pop(), int(stream[at : at + 4], 2)
        at += 4
        if n_bits == SPLIT:
            todo += _halves(part)[::-1]
        else:
            chosen = int(stream[at : at + n_bits] or "0", 2)
            at += n_bits
            values[order[part]] = _candidates(seed, block, chosen, 1, part.stop - part.start)[0]
            block += 1
    if todo or not 0 <= len(stream) - at < 8 or "1" in stream[at:]:
        raise FormatError(
            f"relative entropy code: expected blocks of all weights that fill it, found {len(stream)} bits"
        )
    scaled = zip(shapes.items(), np.split(values, np.cumsum(counts)[:-1]), scales, strict=True)
    return {
        name: torch.from_numpy((part * float(s)).astype(np.float32).reshape(tuple(shape)))
        for (name, shape), part, s in scaled
    }


def _standard(posterior: Mapping[str, Gaussian]) -> tuple[list[str], Numbers, Numbers, Numbers]:
    """The name of each weight, each tensor's s, and means and variances in its units, all in one row."""
    names: list[str] = []
    rows: list[Numbers] = []
    scales = np.zeros(len(posterior), "<f4")
    for index, (name, found) in enumerate(posterior.items()):
        mean, variance = (t.detach().double().cpu().numpy().ravel() for t in (found.mean, found.variance))
        scales[index] = math.sqrt((mean**2 + variance).mean())  # the prior of the shortest code
        scale = float(scales[index])
        names += [name] * mean.size
        rows.append(np.stack([mean / scale, variance / scale**2]))
    means, variances = np.concatenate(rows, axis=1)
    return names, scales, means, variances


def _whole(n: int, length: int) -> list[slice]:
    return [slice(begin, min(begin + length, n)) for begin in range(0, n, length)]


def _halves(part: slice) -> list[slice]:
    middle = (part.start + part.stop + 1) // 2
    return [slice(part.start, middle), slice(middle, part.stop)]


def _cut(total: Numbers, part: slice, bits: int) -> Iterator[tuple[slice, int]]:
    """A block with its number's bits; or one to split, and its halves' blocks."""
    n_bits = math.ceil(total[part.stop] - total[part.start]) + EXTRA
    if n_bits <= bits or part.stop - part.start == 1:
        yield part, min(n_bits, bits)
    else:
        yield part, SPLIT
        for half in _halves(part):
            yield from _cut(total, half, bits)


def _shortest(needed: Numbers, bits: int) -> tuple[int, list[tuple[slice, int]]]:
    """The length of whole blocks with which the code is shortest, and its blocks."""
    total = np.concatenate([[0.0], np.cumsum(needed)])
    most = max(1.0, (bits - EXTRA) * len(needed) / max(total[-1], 1e-9))
    lengths = {max(1, min(len(needed), round(most * 2 ** (-k / 4)))) for k in range(13)}

    def blocks(length: int) -> list[tuple[slice, int]]:
        return [cut for part in _whole(len(needed), length) for cut in _cut(total, part, bits)]

    def n_bits(length: int) -> int:
        return sum(4 + (b if b < SPLIT else 0) for _, b in blocks(length))

    best = min(sorted(lengths), key=n_bits)
    return best, blocks(best)


def _chosen(means: Numbers, variances: Numbers, seed: int, block: int, n_bits: int) -> int:
    """The number of a candidate, drawn with a probability ∝ q/p."""
    values = _candidates(seed, block, 0, 2**n_bits, len(means))
    log_ratio = values**2 @ (0.5 - 0.5 / variances) + values @ (means / variances)  # but for a constant
    gumbel = np.random.default_rng([seed, block]).gumbel(size=len(values))
    return int((log_ratio + gumbel).argmax())


def _candidates(seed: int, block: int, first: int, n: int, length: int) -> Numbers:
    """The candidates from the number `first` on, (n, length), of N(0, 1)."""
    steps = -(-length // (4 * WORDS))
    words = _words(seed, block, first * steps, n * steps * WORDS)
    indices = (words[:, None] >> np.arange(0, 64, 16, dtype=np.uint64)) & np.uint64(0xFFFF)
    return _quantiles()[indices.astype(np.int64)].reshape(n, -1)[:, :length]


def _order(seed: int, n: int) -> Order:
    return np.argsort(_words(seed, ORDER, 0, n), kind="stable")


def _words(seed: int, stream: int, first: int, n: int) -> NDArray[np.uint64]:
    """Words of Philox4x64 from the step `first` of its counter on."""
    source = np.random.Philox(key=seed | stream << 64, counter=first)
    return np.atleast_1d(np.asarray(source.random_raw(n)))


@cache
def _quantiles() -> Numbers:
    """Φ⁻¹((u + ½)/2¹⁶) for all u of 16 bits, in steps of 2⁻¹⁶."""
    inverse = NormalDist().inv_cdf
    half = np.array([round(inverse((u + 0.5) / 2**16) * 2**16) for u in range(2**15, 2**16)], "<i4")
    table = np.concatenate([-half[::-1], half])
    found = hashlib.sha256(table.tobytes()).hexdigest()
    if found != TABLE_DIGEST:
        raise RuntimeError(f"quantiles: expected the table {TABLE_DIGEST[:8]}…, found {found[:8]}…")
    return table / 2.0**16
