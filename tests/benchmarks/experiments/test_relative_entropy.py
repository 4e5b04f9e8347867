import math

import numpy as np
import pytest
import torch

from benchmarks.experiments import relative_entropy
from benchmarks.experiments.relative_entropy import decode, encode
from laconic.errors import FormatError
from laconic.mdl import Gaussian

GOLDEN = [74057.0, 116418.0, 106474.0, 25742.0]
SHAPES = {"a": (30, 40), "b": (3, 100), "c": (5,)}


def posterior(deviation=0.9):
    draw = torch.Generator().manual_seed(0)
    scales = {"a": 0.2, "b": 3.0, "c": 1e-3}
    return {
        name: Gaussian(
            0.4 * scales[name] * torch.randn(shape, generator=draw), torch.full(shape, (deviation * scales[name]) ** 2)
        )
        for name, shape in SHAPES.items()
    }


def divergence_bits(found):
    """From N(0, s²) of each tensor at its best s."""
    total = 0.0
    for q in found.values():
        s2 = float((q.mean**2 + q.variance).mean())
        total += 0.5 * float(((q.variance + q.mean**2) / s2 - 1 - torch.log(q.variance / s2)).sum())
    return total / math.log(2)


@pytest.mark.parametrize("deviation", [0.9, 0.3])
def test_what_is_decoded_is_typical_and_takes_little_more_than_the_divergence(deviation):
    found = posterior(deviation)
    data = encode(found, seed=3)
    decoded = decode(data, SHAPES)
    assert {name: tuple(w.shape) for name, w in decoded.items()} == SHAPES
    n = sum(math.prod(shape) for shape in SHAPES.values())
    off = torch.cat([((decoded[k] - q.mean) / q.variance.sqrt()).flatten() for k, q in found.items()])
    # Of N(0, 1): the mean log density is −½ log 2πe, within four standard errors, and some bias.
    assert float(off.mean()) == pytest.approx(0, abs=4 / n**0.5)
    assert float(off.square().mean()) == pytest.approx(1, abs=4 * (2 / n) ** 0.5 + 0.05)
    bits = divergence_bits(found)
    assert bits < 8 * len(data) < 2 * bits + 8 * (8 + 4 * 3), "with its header"


def test_the_seed_decides_and_shapes_give_the_order():
    found = posterior()
    one, again, other = (encode(found, seed, bits=6) for seed in (1, 1, 2))
    assert one == again != other
    assert all(torch.equal(decode(one, SHAPES)[n], w) for n, w in decode(again, SHAPES).items())


def test_weights_that_are_the_prior_take_hardly_anything():
    found = {"w": Gaussian(torch.zeros(5000), torch.full((5000,), 0.04))}
    data = encode(found, 0)
    assert len(data) == 8 + 4 + 1, "a block of five bits"
    assert float(decode(data, {"w": (5000,)})["w"].std()) == pytest.approx(0.2, rel=0.05)


def test_one_candidate_is_found_without_those_before():
    for n, length in ((1, 3), (50, 16), (20, 33)):
        every = relative_entropy._candidates(5, 2, 0, n, length)
        alone = [relative_entropy._candidates(5, 2, k, 1, length)[0] for k in range(n)]
        assert np.array_equal(every, np.stack(alone))
    assert np.unique(relative_entropy._candidates(5, 2, 0, 50, 16)[:, 0]).size > 45


def test_shared_numbers_are_the_same_everywhere():
    found = relative_entropy._candidates(1, 2, 3, 1, 4)[0] * 2**16
    assert found.tolist() == GOLDEN
    table = relative_entropy._quantiles()
    assert np.abs(table.mean()) < 1e-12
    assert table.var() == pytest.approx(1, abs=1e-3)


def test_limits_are_named():
    precise = {"w": Gaussian(torch.tensor([1.0, 0.0]), torch.tensor([1e-12, 1.0]))}
    with pytest.raises(ValueError, match="w: expected weights of at most 13 bits, found"):
        encode(precise, 0)
    with pytest.raises(ValueError, match="bits: expected 2 to 14, found 15"):
        encode(posterior(), 0, bits=15)
    with pytest.raises(ValueError, match="seed: expected 32 bits"):
        encode(posterior(), 2**32)
    with pytest.raises(ValueError, match="found inf"):
        encode({"w": Gaussian(torch.ones(2), torch.zeros(2))}, 0)
    data = encode(posterior(), 0, bits=6)
    for broken in (data[:5], data[:-2], data + b"\0"):
        with pytest.raises(FormatError, match="relative entropy code"):
            decode(broken, SHAPES)
    with pytest.raises(FormatError, match="relative entropy code"):
        decode(data, {**SHAPES, "c": (900,)})
