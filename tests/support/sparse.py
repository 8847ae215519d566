"""A network with every kind of layer that becomes sparse, and what is asked of its weights."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import octavo
import torch
from octavo.ir import Graph, Value
from octavo.ir.constants import Tensor as Tensor_
from octavo.ir.ops.constant import Constant
from octavo.ir.verifier import verify
from octavo.passes import PassContext, Pipeline
from octavo.passes.pruning.sparsity import find_layers
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """Every kind of layer that has weights, with and without groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.grouped, self.depthwise = nn.Conv2d(8, 12, 3, groups=2), nn.Conv2d(12, 12, 3, groups=12)
        self.up = nn.ConvTranspose2d(12, 6, 2, groups=2)
        self.matrix = nn.Parameter(torch.randn(54, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.up(self.depthwise(F.relu(self.grouped(x)))))
        y: torch.Tensor = self.head(x.flatten(1) @ self.matrix)
        return y


LAYERS = ["stem", "grouped", "depthwise", "up", "matmul", "head"]


def images(seed: int = 1, count: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


@functools.cache
def network() -> Graph:
    torch.manual_seed(0)
    return traced(Net())


def traced(module: nn.Module | None = None) -> Graph:
    if module is None:
        return network().clone()
    return octavo.trace(module.eval(), (torch.zeros(2, 3, 8, 8),))


CALIBRATION = [{"x": images(seed)} for seed in range(3)]


def sparsify(graph: Graph, text: str) -> list[str]:
    lines: list[str] = []
    Pipeline.parse(f"sparsify{{{text}}}").run(graph, PassContext(calibration=CALIBRATION, report=lines.append))
    verify(graph)
    return lines


def rows(graph: Graph) -> dict[str, np.ndarray]:
    """The weights (outputs, taps, input channels) of every layer."""
    found = {}
    for layer in find_layers(graph).found:
        assert isinstance(layer.weight.op, Constant)
        found[layer.name] = layer.layout.to_rows(layer.weight.op.data.numpy())
    return found


def sparsity(weights: Sequence[np.ndarray]) -> float:
    return sum(np.count_nonzero(w == 0) for w in weights) / sum(w.size for w in weights)


def replace(value: Value, array: np.ndarray) -> None:
    assert value.producer is not None
    value.producer.op = Constant(Tensor_.of(array.astype(np.float32)))
