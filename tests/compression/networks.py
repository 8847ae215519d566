"""The networks: ResNet-20 and the two LeNets, for grey images of 28x28, 10 classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import octavo
import torch
from octavo.ir import Graph
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 28
CLASSES = 10


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes.

    He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), with its projection shortcuts.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """float32 [N, 1, 28, 28] to scores [N, 10]: three stages of three blocks with 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        blocks: list[nn.Module] = []
        channels = 16
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            for step in (stride, 1, 1):
                blocks.append(Block(channels, width, step))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return y


def lenet_300_100() -> nn.Module:
    """Two hidden layers of 300 and 100 units (LeCun et al., "Gradient-Based Learning Applied to ...", 1998)."""
    layers = (nn.Linear(SIZE * SIZE, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, CLASSES))
    return nn.Sequential(nn.Flatten(), *layers)


def lenet_5() -> nn.Module:
    """The form of LeNet-5 that Caffe made common, 431,080 parameters: the subject of Han et al., 2016."""
    features = (nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*features, nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, CLASSES))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet20": ResNet20,
    "lenet-300-100": lenet_300_100,
    "lenet-5": lenet_5,
}


def make(name: str, seed: int) -> Graph:
    """The graph of an untrained network for batches of any size; its weights are drawn by ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = NETWORKS[name]().eval()
    batch = torch.export.Dim("batch", min=2)
    example = torch.zeros(2, 1, SIZE, SIZE)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    return octavo.trace(program, name=name)
