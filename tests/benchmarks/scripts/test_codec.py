import math

import numpy as np
import pytest

import laconic
from benchmarks.scripts.codec import Given, adaptive_bits, sparse_integers


def test_adaptive_bits_are_those_of_counting_while_coding():
    q = np.random.default_rng(0).integers(-2, 5, 300, dtype=np.int32)
    counts, bits = dict.fromkeys(range(q.min(), q.max() + 1), 0.5), 0.0
    for value in q.tolist():
        bits -= math.log2(counts[value] / sum(counts.values()))
        counts[value] += 1
    assert adaptive_bits(q) == pytest.approx(bits)


def test_what_is_certain_takes_no_bits():
    assert adaptive_bits(np.full(1000, 7, np.int32)) == 0


def test_files_of_integers_decode_to_their_multiples(tmp_path):
    integers = {"w": sparse_integers()[:20], "b": np.arange(-300, 300, dtype=np.int32)}
    n_bytes = Given(integers, 0.25).save(tmp_path / "f.lac")
    assert n_bytes == (tmp_path / "f.lac").stat().st_size
    decoded = laconic.load(tmp_path / "f.lac")
    assert all((decoded[name].numpy() == 0.25 * q).all() for name, q in integers.items())
