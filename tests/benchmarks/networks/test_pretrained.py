import copy
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks.networks import pretrained
from benchmarks.networks.pretrained import Pretrained, _as_they_are, _of_images


def test_a_network_does_not_diverge_from_itself_and_another_does():
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    inputs = torch.randn(40, 5)
    batches = list(zip(inputs.split(10), model(inputs).argmax(1).split(10), strict=True))
    of = Pretrained(model, batches, partial(_of_images, _as_they_are))
    same = of.compared(copy.deepcopy(model))
    assert same == {"dense_score": 1, "score": 1, "score_lost": 0, "kl": pytest.approx(0, abs=1e-6)}
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.weight *= -1
    found = of.compared(other)
    exact, decoded = (m(inputs).detach().log_softmax(1) for m in (model, other))
    assert found["kl"] == pytest.approx(float((exact.exp() * (exact - decoded)).sum(1).mean()), rel=1e-4)
    assert found["score_lost"] == 1 - found["score"] > 0.3


def test_a_package_that_is_missing_is_named():
    with pytest.raises(SystemExit, match="no_such_network is missing"):
        pretrained.package("no_such_network")
