"""ResNet-18, ResNet-50 (https://arxiv.org/abs/1512.03385) and ResNeXt-50 32x4d (https://arxiv.org/abs/1611.05431).

They have seeded weights under torchvision's names.

No package carries their trained weights. He weights with batch-norm statistics measured on seeded images keep every
layer's activations in a natural range, which is what speed and exactness need; top-1 accuracy is meaningless here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .images import seeded_images


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the stride is in the middle one, as in torchvision."""

    expansion = 4
    groups, widening = 1, 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        width *= self.widening
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=self.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return out


class GroupedBottleneck(Bottleneck):
    """The same with 32 groups in the middle, of twice the channels."""

    groups, widening = 32, 2


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """float32 [N, 3, H, W] to logits [N, 1000]."""

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: tuple[int, ...], classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        stages: list[nn.Sequential] = []
        for index, count in enumerate(layers):
            blocks: list[nn.Module] = []
            for number in range(count):
                blocks.append(block(channels, 64 << index, 2 if index and not number else 1))
                channels = (64 << index) * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def seed_weights(model: nn.Module, seed: int, size: int = 224) -> nn.Module:
    """Give ``model`` He weights, and batch norms the statistics that seeded images of ``size`` produce."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=draw)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.05, generator=draw)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.2, generator=draw)
            nn.init.normal_(module.bias, 0.0, 0.2, generator=draw)
            module.momentum = None  # a plain average over the batches
    model.train()
    with torch.no_grad():
        for batch in range(2):
            model(torch.from_numpy(seeded_images(4, size, seed + batch)))
    return model.eval()


def resnet18() -> nn.Module:
    return seed_weights(ResNet(BasicBlock, (2, 2, 2, 2)), seed=18)


def resnet50() -> nn.Module:
    return seed_weights(ResNet(Bottleneck, (3, 4, 6, 3)), seed=50)


def resnext50() -> nn.Module:
    return seed_weights(ResNet(GroupedBottleneck, (3, 4, 6, 3)), seed=51)
