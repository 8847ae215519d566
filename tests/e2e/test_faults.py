"""The comparison can fail: defects put into kernels' constants and into plans on purpose are all caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from e2e.bundles import Kernels
from e2e.checking import check_samples, native_levels
from e2e.faults import FAULTS
from e2e.growing import some_blocks
from e2e.samples import Sample
from octavo.backends.bundle.link import host_architecture
from octavo.ir import Graph, Tensor, Value
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.elementwise import Add, Relu, Sigmoid
from octavo.ir.ops.matmul import Linear, MatMul
from octavo.ir.ops.reduce import ReduceMean
from octavo.ir.ops.shape import Concat, Reshape, Transpose
from octavo.ir.types import f32
from octavo.passes.base import PassContext
from octavo.passes.pipeline import Pipeline

pytestmark = pytest.mark.skipif(host_architecture() != "x86_64", reason="runs a native level of x86-64")


class _Network:
    """Every part that a fault breaks: borders, tails, tables, residuals, concats, copies, products, small inputs."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(7)
        self.graph = Graph("faulty")

    def constant(self, *shape: int, scale: float = 1.0) -> Value:
        return self.graph.constant(Tensor.of((scale * self.rng.normal(size=shape)).astype(np.float32)))

    def conv(self, x: Value, outputs: int, kernel: int, groups: int = 1, *, sparse: bool = False) -> Value:
        depth = x.type.static_shape[1] // groups
        shape = (outputs, depth, kernel, kernel)
        values = self.rng.normal(size=shape) / (kernel * depth**0.5)
        if sparse:
            values *= some_blocks(shape, self.rng)
        weight = self.graph.constant(Tensor.of(values.astype(np.float32)))
        half = (kernel // 2, kernel // 2)
        op = Conv((1, 1), (half, half), (1, 1), groups)
        return self.graph.insert(op, [x, weight, self.constant(outputs, scale=0.3)], origin="conv").output

    def build(self) -> Graph:
        g = self.graph
        x, shift = g.add_input("x", f32(1, 5, 12, 12)), g.add_input("shift", f32(1, 19, 1, 1))
        stem = g.insert(Add(), [g.insert(Relu(), [self.conv(x, 19, 3)]).output, shift]).output
        deep = g.insert(Relu(), [self.conv(stem, 19, 3, groups=19)]).output
        sums = g.insert(Add(), [self.conv(deep, 19, 1), stem]).output
        gate = g.insert(Sigmoid(), [self.conv(sums, 7, 3)]).output
        joined = g.insert(Concat(1), [gate, sums, self.conv(gate, 3, 1)]).output
        mixed = g.insert(Add(), [joined, self.conv(joined, 29, 1)]).output
        tokens = g.insert(Reshape((1, 29, 144)), [g.insert(Relu(), [mixed]).output]).output
        turned = g.insert(Transpose((0, 2, 1)), [tokens]).output
        product = g.insert(MatMul(), [tokens, turned]).output
        square = g.insert(MatMul(), [product, tokens]).output
        logits = g.insert(Linear(), [product, self.constant(6, 29, scale=0.2), self.constant(6)]).output
        outputs = {
            "pixels": self.conv(joined, 6, 3),
            "logits": logits,
            "product": product,
            "square": square,
            "blocks": self.conv(stem, 33, 3, sparse=True),
            "sum": g.insert(Add(), [sums, g.insert(ReduceMean((2, 3), True), [sums]).output]).output,
        }
        g.set_outputs(list(outputs.values()), list(outputs))
        return g


@pytest.fixture(scope="module")
def sample() -> Sample:
    graph = _Network().build()
    rng = np.random.default_rng(3)
    shapes = {value.name: value.type.static_shape for value in graph.inputs}
    batches = [{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(3)]
    Pipeline.parse("int8").run(graph, PassContext(calibration=batches))
    return Sample(0, graph, batches[0], ())


@pytest.fixture(scope="module")
def level() -> str:
    return [name for name in native_levels() if name != "amx"][-1]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """Shared: most faults call the same kernels with other constants or at other places."""
    return Kernels(tmp_path_factory.mktemp("kernels"))


def test_nothing_is_wrong_without_a_fault(sample: Sample, level: str, kernels: Kernels, tmp_path: Path) -> None:
    assert check_samples([sample], level, tmp_path, kernels) == []


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(
    name: str, sample: Sample, level: str, kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[name](monkeypatch)
    assert check_samples([sample], level, tmp_path, kernels, blame=False) != []
