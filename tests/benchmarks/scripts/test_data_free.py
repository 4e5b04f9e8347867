import math

import pytest

from benchmarks.networks.pretrained import NETWORKS
from benchmarks.scripts import data_free


def test_lines_are_of_log_divergences():
    points = [{"bytes": n, "kl": math.exp(2 - 0.5 * n)} for n in (1.0, 2.0, 5.0)]
    assert data_free.line(points) == (pytest.approx(-0.5), pytest.approx(2))


def test_every_network_has_settings():
    assert data_free.SETTINGS.keys() == NETWORKS.keys()
