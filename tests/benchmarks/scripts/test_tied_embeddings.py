import math

import pytest

from benchmarks.scripts import tied_embeddings


def test_bytes_are_read_from_a_line_of_logarithms():
    files = [{"bytes": n, "nats_lost": math.exp(-n)} for n in (1.0, 2.0, 4.0)] + [{"bytes": 9.0, "nats_lost": -0.001}]
    assert tied_embeddings.bytes_at(math.exp(-3), files) == pytest.approx(3)
