"""The building blocks of well-known networks, small: what people bring to be compiled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze-excite, project."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16))
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 16, 1), nn.Hardsigmoid()
        )
        self.project = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.depthwise(self.expand(x)))
        y = y * self.squeeze(y)
        x += self.project(y)
        return x


class ShuffleUnit(nn.Module):
    """ShuffleNetV2: half of the channels pass by, then channels are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        y = torch.cat((left, self.branch(right)), dim=1)
        n, c, h, w = y.size()
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class UNet(nn.Module):
    """Down, up by a transposed convolution, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(8, 8, 3, padding=1)
        self.bottom = nn.Conv2d(8, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        y = self.up(F.relu(self.bottom(F.max_pool2d(skip, 2))))
        dy, dx = skip.size(2) - y.size(2), skip.size(3) - y.size(3)
        y = F.pad(y, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        out: Tensor = self.last(torch.cat([skip, y], 1))
        return out


class Detector(nn.Module):
    """YOLO's parts: split bottleneck, spatial pyramid, upsampled neck, decoded boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.SiLU())
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.head = nn.Conv2d(24, 3 * 7, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.split(x, [4, 4], 1)
        second = self.inner(second) + second
        once = self.pool(second)
        y = torch.cat([first, second, once, self.pool(once), x], 1)
        y = self.head(F.interpolate(y, scale_factor=2.0, mode="nearest"))
        n, _, h, w = y.shape
        y = y.view(n, 3, 7, h, w).permute(0, 1, 3, 4, 2)
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((columns, rows), -1).view(1, 1, h, w, 2).float()
        boxes = torch.cat(((y[..., :2].sigmoid() * 2 - 0.5 + grid) * 8, (y[..., 2:4].sigmoid() * 2) ** 2), -1)
        return boxes.reshape(n, -1, 4), y[..., 4:].sigmoid().flatten(1, 3)


class Segmenter(nn.Module):
    """DeepLab's pyramid: dilated convolutions, a global branch, resizing to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=d, dilation=d) for d in (1, 2, 3))
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(x, 2, ceil_mode=True)
        parts = [branch(y) for branch in self.branches]
        parts.append(F.interpolate(self.whole(y), size=y.shape[-2:], mode="bilinear", align_corners=False))
        scores: Tensor = F.interpolate(torch.cat(parts, 1), size=x.shape[-2:], mode="bilinear", align_corners=True)
        best: Tensor = scores.argmax(1)
        return best


class ConvNext(nn.Module):
    """Depthwise 7x7, layer norm with channels last, GELU, a learned scale."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)
        self.gamma = nn.Parameter(torch.full((8,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.narrow(F.gelu(self.wide(y)))
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, one block of its own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(8, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 7, 16) * 0.02)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.position
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + self.out(y)
        x = x + self.mlp(self.norm2(x))
        return x[:, 0]


class SwinWindows(nn.Module):
    """Shifted windows with a relative position bias from a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 2) * 0.1)
        coordinates = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        relative = (coordinates[:, :, None] - coordinates[:, None]).permute(1, 2, 0) + 1
        self.register_buffer("index", relative[..., 0] * 3 + relative[..., 1])
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = torch.roll(x.permute(0, 2, 3, 1), shifts=(-1, -1), dims=(1, 2))
        y = y.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, -1, 4, c)
        q, k, v = self.qkv(y).view(b, y.shape[1], 4, 3, 2, 4).permute(3, 0, 1, 4, 2, 5)
        bias = self.table[self.get_buffer("index").view(-1)].view(4, 4, 2).permute(2, 0, 1)
        y = torch.softmax(q @ k.transpose(-2, -1) * 0.5 + bias, -1) @ v
        y = y.transpose(2, 3).reshape(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(y, shifts=(1, 1), dims=(1, 2)).permute(0, 3, 1, 2)


class Recognizer(nn.Module):
    """CRNN: columns of an image as a sequence for a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 6, bidirectional=True, batch_first=True)
        self.classify = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(F.relu(self.conv(x)), (8, 1)).squeeze(2).permute(0, 2, 1)
        y, _ = self.lstm(y)
        return F.log_softmax(self.classify(y), dim=-1)


class Temporal(nn.Module):
    """WaveNet's gate: causal padding, tanh times sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 16, 2, dilation=4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        a, b = self.conv(F.pad(x, (4, 0))).chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b) + x


class Statistics(nn.Module):
    """A speaker network's pooling: mean and deviation over time."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        mean = x.mean(-1, keepdim=True)
        return torch.cat([mean.squeeze(-1), ((x - mean) ** 2).mean(-1).clamp(min=1e-9).sqrt()], 1)


NETWORKS: tuple[type[nn.Module], ...] = (
    SqueezeExcite,
    ShuffleUnit,
    UNet,
    Detector,
    Segmenter,
    ConvNext,
    VisionTransformer,
    SwinWindows,
    Recognizer,
    Temporal,
    Statistics,
)
"""Each takes float32 [N, 8, 8, 12]."""
