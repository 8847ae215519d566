"""Small networks in which channels flow in all ways, and what is counted of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import octavo
import torch
from octavo.ir import Graph
from octavo.ir.graph import Value
from octavo.ir.ops.constant import Constant
from octavo.passes.pruning.groups import find_channels
from torch import Tensor, nn
from torch.nn import functional as F


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3, groups=12)
        self.norm = nn.BatchNorm2d(12)
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.depthwise(F.hardswish(self.stem(x))))
        x = x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        y: Tensor = self.head(x.amax((2, 3)))
        return y


class Branches(nn.Module):
    """Concat, chunk, residual add, grouped convolution, channel shuffle, flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 4, 1)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.back = nn.Conv2d(12, 12, 1)
        self.piece = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), F.relu(self.right(x))], 1)
        x = x + self.back(F.leaky_relu(self.grouped(x)))
        x = x.reshape(x.shape[0], 3, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        a, b = x.chunk(2, 1)
        y: Tensor = self.head(F.max_pool2d(self.piece(a) - b, 2).flatten(1))
        return y


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.query, self.key, self.value = (nn.Linear(16, 24) for _ in range(3))
        self.out = nn.Linear(24, 16)
        self.wide, self.narrow = nn.Linear(16, 20), nn.Linear(20, 16)

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.query, self.key, self.value)
        q, k, v = (part(self.norm(x)).reshape(2, 7, 4, 6).transpose(1, 2) for part in parts)
        mixed = torch.softmax(q @ k.transpose(2, 3) / 6**0.5, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(2, 7, 24))
        y: Tensor = x + self.narrow(F.gelu(self.wide(x)))
        return y


class Upscale(nn.Module):
    """Transposed convolutions, interpolation, instance norm, a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.spread = nn.ConvTranspose2d(3, 6, 2, 2), nn.ConvTranspose2d(6, 6, 2, 2, groups=6)
        self.norm, self.shared, self.head = nn.InstanceNorm2d(6), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(F.prelu(self.up(x), torch.tensor(0.2)))
        x = self.shared(F.pad(self.norm(x), (1, 1, 0, 0))) * 0.5
        y: Tensor = self.head(F.interpolate(F.elu(self.shared(x)), scale_factor=2, mode="bilinear"))
        return y


IMAGE = (2, 3, 8, 8)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "squeeze-excite": (SqueezeExcite, IMAGE),
    "branches": (Branches, IMAGE),
    "attention": (Attention, (2, 7, 16)),
    "upscale": (Upscale, IMAGE),
}


def traced(name: str) -> Graph:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    module = make().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 2.0)
    return octavo.trace(module, (torch.zeros(shape),))


def macs(graph: Graph) -> int:
    return sum(n.op.cost([v.type for v in n.inputs], [v.type for v in n.outputs]).macs for n in graph.nodes)


def amount(graph: Graph, of: str) -> int:
    if of == "channels":
        return sum(len(group.units) for group in find_channels(graph).groups)
    if of == "parameters":
        return sum(constant(node.output).size for node in graph.nodes if isinstance(node.op, Constant))
    return macs(graph)


def widths(graph: Graph) -> list[int]:
    return [node.inputs[1].type.static_shape[0] for node in graph.nodes if node.op.name in ("conv", "linear")]


def constant(value: Value) -> np.ndarray:
    assert isinstance(value.op, Constant)
    return value.op.data.numpy()
