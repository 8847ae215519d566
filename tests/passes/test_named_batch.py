"""A named batch dimension changes nothing: the integer network is that of a fixed batch, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import octavo
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.interpreter import run_graph
from octavo.passes import PassContext, Pipeline
from octavo.passes.training.integer import shipped
from torch import Tensor, nn

IMAGES, TOKENS, VECTORS = (3, 8, 8), (6, 8), (8,)


class Attention(nn.Module):
    """Over 6 tokens of 8 numbers, two heads, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inputs, self.output = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.inputs(self.norm(x)).reshape(-1, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2), -1)
        y: Tensor = x + self.output((weights @ heads[2]).transpose(1, 2).reshape(-1, 6, 8))
        return y


def norm(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.5, 2.0)
    return layer


def convolutions(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *between, nn.Conv2d(4, 4, 1))


def layers(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), *between, nn.Linear(8, 4))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "softmax of channels": (lambda: convolutions(nn.Softmax(1)), IMAGES, "qsoftmax"),
    "softmax of rows": (lambda: convolutions(nn.Softmax(-1)), IMAGES, "qsoftmax"),
    "attention": (Attention, TOKENS, "qsoftmax"),
    "layer norm": (lambda: layers(nn.LayerNorm(8)), TOKENS, "qlayer_norm"),
    "layer norm of matrices": (lambda: layers(nn.LayerNorm([6, 8], elementwise_affine=False)), TOKENS, "qlayer_norm"),
    "group norm": (lambda: convolutions(nn.GroupNorm(2, 4)), IMAGES, "qlayer_norm"),
    "norm before a convolution": (lambda: convolutions(nn.Sigmoid(), norm(nn.BatchNorm2d(4))), IMAGES, "qconv"),
    "norm before a linear layer": (lambda: layers(nn.Sigmoid(), norm(nn.BatchNorm1d(8))), VECTORS, "qlinear"),
    "pools": (lambda: convolutions(nn.AdaptiveAvgPool2d(3), nn.MaxPool2d(2)), IMAGES, "qavg_pool"),
    "transposed": (lambda: convolutions(nn.ConvTranspose2d(4, 4, 2, 2), nn.GELU()), IMAGES, "qconv_transpose"),
}


def graphs(module: nn.Module, x: np.ndarray) -> tuple[Graph, Graph]:
    """A module with a named batch dimension, and with the batch of ``x``."""
    example = (torch.from_numpy(x),)
    dynamic = ({0: torch.export.Dim("n", min=2)},)
    program = torch.export.export(nn.Sequential(module), example, dynamic_shapes=dynamic)
    return octavo.trace(program), octavo.trace(nn.Sequential(module), example)


@pytest.mark.parametrize("case", CASES)
def test_the_network_of_a_named_batch_is_that_of_a_fixed_one(case: str) -> None:
    torch.manual_seed(0)
    make, shape, op = CASES[case]
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    named, fixed = graphs(make().eval(), x)
    for graph in (named, fixed):
        name = graph.inputs[0].name
        pipeline = Pipeline.parse("prepare,compose,observe{method=minmax},calibrate,quantize")
        pipeline.run(graph, PassContext(calibration=[{name: x}]))
    # Training validates by this, before any pass of its own.
    judged = shipped(octavo.to_torch(named))([torch.from_numpy(x)])[0].numpy()
    for graph in (named, fixed):
        Pipeline.parse("lower-integer,finish").run(graph)
        assert op in {node.op.name for node in graph.nodes}
    (expected,) = run_graph(fixed, {fixed.inputs[0].name: x}).values()
    (found,) = run_graph(named, {named.inputs[0].name: x}).values()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(judged, expected, atol=0.02 * np.abs(expected).max())
    (twice,) = run_graph(named, {named.inputs[0].name: np.concatenate([x, x])}).values()
    np.testing.assert_array_equal(twice[4:], expected)


def test_a_softmax_over_the_batch_itself_stays_in_float() -> None:
    x = np.random.default_rng(0).normal(size=(4, *VECTORS)).astype(np.float32)
    named, _ = graphs(layers(nn.Softmax(0)).eval(), x)
    context = PassContext(calibration=[{named.inputs[0].name: x}])
    before = run_graph(named, {named.inputs[0].name: x}).popitem()[1]
    Pipeline.parse("int8").run(named, context)
    (softmax,) = (node for node in named.nodes if "softmax" in node.op.name)
    assert str(softmax.decision and softmax.decision.reason) == "the summed dimension is not fixed"
    after = run_graph(named, {named.inputs[0].name: x}).popitem()[1]
    assert np.square(after - before).sum() < 1e-2 * np.square(before).sum()
