"""Tensors that lossless and delta coding must keep bit by bit."""

import math

import torch

from laconic.codec.spec import DTYPES

AWKWARD = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -1e-45, 1.0, -1.0, 3e38]


def same_bits(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return not a.numel() or torch.equal(raw(a), raw(b))


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def tensor_of(dtype, shape, kind, seed=0):
    """A tensor of `dtype`: `noise` is any bits at all, the other kinds are what checkpoints hold."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "noise":
        n_bytes = math.prod(shape) * dtype.itemsize
        bits = torch.randint(0, 2 if dtype == torch.bool else 256, (n_bytes,), generator=generator)
        return bits.to(torch.uint8).view(dtype).reshape(shape)
    values = torch.randn(shape, generator=generator) * 0.05
    if kind == "sparse":
        values = torch.where(torch.rand(shape, generator=generator) < 0.2, values, 0.0)
    if kind == "rows" and len(shape) > 1:
        values = values * 2.0 ** (torch.arange(shape[0]) % 7).reshape(-1, *[1] * (len(shape) - 1))
    if kind == "awkward" and values.numel():
        chosen = torch.randint(0, len(AWKWARD), shape, generator=generator)
        values = torch.tensor(AWKWARD)[chosen]
    if not dtype.is_floating_point:
        values = (values.nan_to_num(0, 9, -9) * 100).clamp(-100, 100).abs()
    return values.to(dtype)


KINDS = ("noise", "weights", "sparse", "rows", "awkward")
TYPES = DTYPES
