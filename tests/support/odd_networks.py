"""Networks whose channels meet in odd ways: what pruning must not get wrong."""

from __future__ import annotations

from collections.abc import Callable

import octavo
import torch
from octavo.ir import Graph
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualConcat(nn.Module):
    """A value is added to one layer's result and put beside another's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.join = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.side, self.head = nn.Conv2d(8, 6, 1), nn.Conv2d(14, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.inner(F.relu(x))
        z = self.join(torch.cat([x, y], 1)) + y
        found: Tensor = self.head(torch.cat([self.side(z), z], 1))
        return found


class UnequalSplit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.short, self.long = nn.Conv2d(3, 15, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(11, 6, 1)
        self.head = nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        short, long = torch.split(F.relu(self.stem(x)), [4, 11], 1)
        y: Tensor = self.head(self.short(short) * torch.sigmoid(self.long(long)))
        return y


class Shuffled(nn.Module):
    """Two groups become four, with a channel shuffle between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.two = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 24, 1, groups=2)
        self.four, self.head = nn.Conv2d(24, 12, 3, padding=1, groups=4), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.two(F.relu(self.stem(x))))
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        y: Tensor = self.head(F.relu(self.four(x)).mean((2, 3)))
        return y


class Tied(nn.Module):
    """The last layer is the first one turned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(6, 16, bias=False), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.inner(F.relu(self.first(x)))), self.first.weight.t())


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 2, 2), nn.ConvTranspose2d(8, 12, 2, 2, groups=4)
        self.head = nn.Conv2d(12, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(F.elu(self.up(F.relu(self.down(x)))))
        return y


class BesideLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.into = nn.Linear(5, 12), nn.Linear(12, 10)
        self.lstm, self.behind, self.head = nn.LSTM(10, 8, batch_first=True), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(torch.relu(self.into(torch.relu(self.before(x)))))
        found: Tensor = self.head(torch.relu(self.behind(y)))
        return found


class FusedAttention(nn.Module):
    """One layer makes queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(16), nn.Linear(16, 48)
        self.out, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, t, 3, 4, 4).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        found: Tensor = self.head(x + self.out(y.transpose(1, 2).reshape(b, t, c)))
        return found


class GatedResidual(nn.Module):
    """Squeeze-excite inside a residual chain, behind batch normalization, with a named batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.down, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.inner, self.head = nn.Conv2d(16, 16, 1), nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.stem(x)))
        gate = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        y: Tensor = self.head((x + self.inner(x * gate)).mean((2, 3)))
        return y


class Multiplied(nn.Module):
    """A depthwise convolution makes three channels of each; features inside are an output, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.depthwise = nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 24, 3, groups=8)
        self.features, self.head = nn.Conv2d(24, 6, 1), nn.Linear(6 * 16, 9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.features(self.depthwise(self.act(self.stem(x))))
        return self.head(y.flatten(1)), y


class Mixer(nn.Module):
    """Layers along places and along channels in turn, with a named batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 12), nn.Linear(12, 3)
        self.places, self.back = nn.Linear(6, 10), nn.Linear(10, 6)
        self.wide, self.narrow = nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.back(F.gelu(self.places(x.transpose(1, 2)))).transpose(1, 2)
        x = x + self.narrow(F.gelu(self.wide(x)))
        y: Tensor = self.head(x.amax(1))
        return y


_IMAGE = (2, 3, 8, 8)
ODD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool]] = {
    "residual-concat": (ResidualConcat, _IMAGE, False),
    "unequal-split": (UnequalSplit, _IMAGE, False),
    "shuffled": (Shuffled, _IMAGE, False),
    "tied": (Tied, (2, 6), False),
    "transposed": (Transposed, _IMAGE, False),
    "beside-lstm": (BesideLstm, (2, 4, 5), False),
    "fused-attention": (FusedAttention, (2, 5, 16), False),
    "gated-residual": (GatedResidual, _IMAGE, True),
    "multiplied": (Multiplied, _IMAGE, False),
    "mixer": (Mixer, (2, 6, 5), True),
}
"""The module, the shape of its input, and whether the batch has a name."""


def odd_network(name: str) -> tuple[Graph, tuple[int, ...]]:
    """The graph of a network with weights that are always the same, and the shape of its input."""
    make, shape, named = ODD[name]
    torch.manual_seed(1)
    module = make().eval()
    inputs = (torch.zeros(shape),)
    if not named:
        return octavo.trace(module, inputs), shape
    batch = {0: torch.export.Dim("n", min=2)}
    return octavo.trace(torch.export.export(module, inputs, dynamic_shapes=(batch,))), shape
