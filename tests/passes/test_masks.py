"""Masks before a softmax: minus infinity in a constant must not take the grid, nor become NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from octavo.backends.api import optimize
from octavo.ir import Graph, run_graph
from octavo.ir.importers.torch import import_torch
from octavo.ir.ops.quantize import FakeQuantize
from torch import Tensor, nn

LENGTH = 6
HIDDEN = torch.ones(LENGTH, LENGTH).triu(1).bool()


class Attention(nn.Module):
    """Single-head attention over float32 [1, 6, 8] with a constant term in its scores."""

    def __init__(self, term: Tensor) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.register_buffer("term", term)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2) + self.get_buffer("term")
        out: Tensor = scores.softmax(-1) @ v
        return out


def batches() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(1, LENGTH, 8)).astype(np.float32) for _ in range(4)]


def traced(term: Tensor) -> Graph:
    torch.manual_seed(0)
    return import_torch(Attention(term), (torch.zeros(1, LENGTH, 8),))


def sqnr(graph: Graph, other: Graph) -> float:
    (x,) = batches()[:1]
    want, got = (run_graph(g, {g.inputs[0].name: x})["output"] for g in (graph, other))
    assert np.isfinite(got).all()
    return float(10 * np.log10(np.square(want).sum() / np.square(want - got).sum()))


@pytest.mark.parametrize("hidden", [-np.inf, float(np.finfo(np.float32).min), -1e4])
def test_a_causal_mask_leaves_the_scores_their_precision(hidden: float) -> None:
    graph = traced(torch.zeros(LENGTH, LENGTH).masked_fill(HIDDEN, hidden))
    assert sqnr(graph, optimize(graph, calibration=batches())) > 25


def test_numbers_beside_a_mask_keep_their_precision() -> None:
    """A bias by distance, as in ALiBi, in the same constant as the causal mask."""
    distance = torch.arange(LENGTH) - torch.arange(LENGTH)[:, None]
    graph = traced((0.5 * distance).masked_fill(HIDDEN, -torch.inf))
    frozen = optimize(graph, calibration=batches())
    assert sqnr(graph, frozen) > 25
    add = next(node for node in frozen.nodes if node.op.name == "add")
    assert add.decision is not None
    assert "mask" in add.decision.reason


def test_infinity_on_a_grid_is_its_end() -> None:
    x = torch.tensor([-torch.inf, 0.26, torch.inf], requires_grad=True)
    y = FakeQuantize().run(x, torch.tensor(0.5), torch.tensor(0.0))
    assert y.tolist() == [-64.0, 0.5, 63.5]
    (gradient,) = torch.autograd.grad(y[1], x)
    assert float(gradient[1]) == 1.0
