"""A task that trains in seconds: which of three clouds does a point belong to?"""

from __future__ import annotations

import octavo
import torch
from octavo.ir import Graph
from octavo.passes.training.loop import Samples
from torch import nn


def perceptron(width: int, seed: int = 0) -> Graph:
    """Layers ``0`` to ``3``: linear, batch normalization, relu, linear; with a named batch dimension."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)).eval()
    batch = torch.export.Dim("n", min=2)
    return octavo.trace(torch.export.export(module, (torch.zeros(2, 6),), dynamic_shapes=({0: batch},)))


def clouds(seed: int, count: int = 200, apart: float = 1.5) -> Samples:
    """Points [count, 6] around centers that are always the same, and the numbers of their clouds."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=random)
    centers = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)) * apart
    return Samples((centers[labels] + torch.randn(count, 6, generator=random),), labels)
