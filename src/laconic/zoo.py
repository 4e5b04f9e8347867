"""The small networks of demos, benchmarks and the papers they are measured against.

LeNet-300-100 and LeNet-5: LeCun et al. (1998), the latter as in Caffe's example, which pruning papers since Han et al.
(2015) count. ResNets for CIFAR-10: He et al. (2016), section 4.2, with option-A shortcuts, which have no parameters;
names are those of the widely used ``pytorch_resnet_cifar10`` checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override


def mlp(*sizes: int) -> nn.Sequential:
    """Fully connected layers fc1, fc2, … with ReLU between; `sizes` are units of input, hidden layers and output."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        layers |= {f"fc{i}": nn.Linear(n_in, n_out)} | ({f"relu{i}": nn.ReLU()} if i < len(sizes) - 1 else {})
    return nn.Sequential(layers)


def blobs_net() -> nn.Sequential:
    """A 20-50-3 network for `laconic.datasets.blobs`: weights 0.1·N(0, 1), biases zero."""
    model = mlp(20, 50, 3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    return model


def lenet_300_100(n_inputs: int = 784, n_classes: int = 10) -> nn.Sequential:
    """LeNet-300-100: two hidden layers of 300 and 100 units; 266 610 parameters for MNIST."""
    return mlp(n_inputs, 300, 100, n_classes)


def digits_net() -> nn.Sequential:
    """A small network for `laconic.datasets.digits`: two convolutions with batch norms, two linear layers."""
    return nn.Sequential(
        OrderedDict(
            image=nn.Unflatten(1, (1, 8, 8)),
            conv1=nn.Conv2d(1, 16, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(16),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            bn2=nn.BatchNorm2d(32),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * 4 * 4, 64),
            relu3=nn.ReLU(),
            fc2=nn.Linear(64, 10),
        )
    )


def lenet5(n_first: int = 20, n_second: int = 50, n_hidden: int = 500) -> nn.Sequential:
    """Caffe's LeNet-5 for (examples, 1, 28, 28): 20-50-500 units, one ReLU; 431 080 parameters."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, n_first, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(n_first, n_second, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(n_second * 4 * 4, n_hidden),
            relu1=nn.ReLU(),
            fc2=nn.Linear(n_hidden, 10),
        )
    )


class BasicBlock(nn.Module):
    """Two convolutions of 3 by 3, and a shortcut that subsamples and pads with zero channels."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.stride, self.n_new = stride, n_out - n_in
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    @override
    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.n_new:
            before = self.n_new // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.n_new - before))
        return F.relu(out + x)


class ResNet(nn.Module):
    """He et al.'s ResNet for images of 32 by 32: three stages of 16, 32 and 64 channels.

    Args:
        depth: number of layers with weights, 6n + 2 for n blocks a stage.
        n_classes: units of the output.

    Raises:
        ValueError: the depth is not 6n + 2.
    """

    def __init__(self, depth: int, n_classes: int = 10):
        super().__init__()
        n_blocks, rest = divmod(depth - 2, 6)
        if n_blocks < 1 or rest:
            raise ValueError(f"depth: expected 6n + 2, n at least 1, found {depth}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(BasicBlock(n_in, n_out, stride), *(BasicBlock(n_out, n_out, 1) for _ in range(n_blocks - 1)))
            for n_in, n_out, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @override
    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean((2, 3)))


def resnet20() -> ResNet:
    """ResNet-20 for CIFAR-10: 269 722 parameters."""
    return ResNet(20)


def resnet32() -> ResNet:
    """ResNet-32 for CIFAR-10: 464 154 parameters."""
    return ResNet(32)
