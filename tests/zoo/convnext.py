"""ConvNeXt-T (https://arxiv.org/abs/2201.03545) with seeded weights: float layer norms between large layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .resnet import seed_weights

DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of an image (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class Block(nn.Module):
    """A 7x7 depthwise convolution and two linear layers around a shortcut; `scale` is the paper's layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.project = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.project(self.activation(self.expand(y))) * self.scale
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class ConvNeXt(nn.Module):
    """float32 [N, 3, 224, 224] to logits [N, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 4, 4), ChannelNorm(WIDTHS[0])]
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            if stage:
                layers += [ChannelNorm(WIDTHS[stage - 1]), nn.Conv2d(WIDTHS[stage - 1], width, 2, 2)]
            layers += [Block(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(WIDTHS[-1], eps=1e-6)
        self.head = nn.Linear(WIDTHS[-1], 1000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.features(x).mean((2, 3))))
        return logits


def convnext_tiny() -> nn.Module:
    return seed_weights(ConvNeXt(), seed=52)
