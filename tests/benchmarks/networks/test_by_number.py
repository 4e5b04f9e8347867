import copy

import torch
from torch import nn

from benchmarks.networks.by_number import ByNumber, Numbered


def test_answers_are_the_networks_and_are_found_once_for_each_state():
    images, calls = torch.randn(250, 4), []
    net = nn.Linear(4, 3)
    net.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    by_number = ByNumber(net, Numbered(images, 10))
    some, other = torch.tensor([12, 249, 30]), torch.tensor([10, 11])
    with torch.no_grad():
        assert torch.equal(by_number(torch.tensor([3, 9])), net(images[[3, 9]]))
        assert torch.equal(by_number(torch.tensor([3, 9])), net(images[[3, 9]]))
        assert calls == 4 * [2], "observed ones every time"
        calls.clear()
        assert torch.allclose(by_number(some), images[some] @ net.weight.T + net.bias, atol=1e-6)
        again = copy.deepcopy(by_number)
        assert torch.allclose(again(other), images[other] @ net.weight.T + net.bias, atol=1e-6)
        assert calls == [100, 100, 40]
        again.network.weight.mul_(2)
        assert torch.allclose(again(other), 2 * images[other] @ net.weight.T + net.bias, atol=1e-6)
    assert again.numbered is by_number.numbered
    assert len(by_number.numbered.answers) == 2
