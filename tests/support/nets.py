"""A small network with everything that pruning meets, its data and its evidence; and a task for rules."""

from contextlib import contextmanager
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from laconic.model.evidence import GRADIENT, MOVEMENT, Evidence, Statistic, observe
from laconic.surgery.plan import Coupling, Group, Part
from laconic.training.rules import attach


class Net(nn.Module):
    """Grouped and plain convolutions, a batch norm, and two linear layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(16, 8, 3, padding=1, groups=2, bias=False)
        self.conv1 = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 4, 3, padding=1)
        self.fc1 = nn.Linear(16, 16)
        self.fc2 = nn.Linear(16, 16)
        self.fc2.weight = self.fc1.weight
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.bn(self.conv1(self.grouped(x))).relu()
        x = self.conv2(x).relu().flatten(1)
        return self.head(self.fc2(self.fc1(x).relu()).relu())


def part(tensor, axis, n):
    return Part(tensor, axis, torch.arange(n)[:, None])


COUPLING = Coupling(
    (
        Group(
            "conv1",
            (*(part(name, 0, 8) for name in ("conv1.weight", "bn.weight", "bn.bias")), part("conv2.weight", 1, 8)),
        ),
        Group(
            "conv2",
            (
                part("conv2.weight", 0, 4),
                part("conv2.bias", 0, 4),
                Part("fc1.weight", 1, torch.arange(16).reshape(4, 4)),
            ),
        ),
    ),
    refused={},
)


@cache
def net_and_evidence():
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model.bn.weight.uniform_(0.5, 1.5)
    batches = [(torch.randn(16, 16, 4, 4), torch.randint(0, 4, (16,))) for _ in range(2)]
    evidence = observe(model, batches, set(Statistic) - {MOVEMENT})
    found = {**evidence.found, MOVEMENT: {n: -g for n, g in evidence.found[GRADIENT].items()}}
    return model, Evidence(evidence.n, found), batches


@contextmanager
def fitted_to_two_of_eight_inputs(rule, n_steps, loss_weight=1.0):
    """A linear model, the attached rule and the loss, after training on the sum of two of 256 examples' eight inputs."""
    torch.manual_seed(0)
    model = nn.Linear(8, 1, bias=False)
    inputs = torch.randn(256, 8)
    targets = inputs[:, :2].sum(1, keepdim=True)

    def loss():
        return F.mse_loss(model(inputs), targets)

    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    with attach(rule, model, optimizer) as attached:
        for _ in range(n_steps):
            optimizer.zero_grad()
            (loss() * loss_weight).backward()
            optimizer.step()
        yield model, attached, loss
