"""What kernels a plan calls where float and bytes meet, and where operands nest their axes differently."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.plan.planner import plan_graph
from octavo.backends.tvm.isa import get_isa
from octavo.backends.tvm.kernels.base import KernelSpec
from octavo.backends.tvm.kernels.chain import ChainSpec
from octavo.backends.tvm.kernels.elementwise import BinarySpec
from octavo.backends.tvm.kernels.float_layer_norm import FloatLayerNormSpec
from octavo.ir import Graph
from octavo.ir.constants import Tensor
from octavo.ir.graph import Value
from octavo.ir.op import Op
from octavo.ir.ops.elementwise import Add, Mul
from octavo.ir.ops.integer import QAdd
from octavo.ir.ops.norm import LayerNorm
from octavo.ir.ops.quantize import Dequantize, Quantize
from octavo.ir.ops.shape import Transpose
from octavo.ir.types import DType, f32, per_tensor

GRID = per_tensor(0.05, 3)
CHANNELS_LAST = (0, 2, 3, 1)


class Net:
    """A graph with one input, and the kernels of its plan."""

    def __init__(self, *shape: int) -> None:
        self.graph = Graph("n")
        self.x = self.graph.add_input("x", f32(*shape))

    def __call__(self, op: Op, *inputs: Value) -> Value:
        return self.graph.insert(op, list(inputs)).output

    def constant(self, *shape: int) -> Value:
        return self.graph.constant(Tensor.of(np.ones(shape, np.float32)))

    def kernels(self, *outputs: Value) -> tuple[list[str], list[KernelSpec]]:
        """Kinds in the order of calls, and what was called."""
        self.graph.set_outputs(list(outputs))
        program, specs = plan_graph(self.graph, get_isa("avx2"), WeightStore(), "n")
        return [step.work.kernel for step in program.steps], [specs[step.symbol] for step in program.steps]


def norms(specs: Sequence[KernelSpec]) -> list[tuple[str, str, bool]]:
    return [(spec.x, spec.out, spec.affine) for spec in specs if isinstance(spec, FloatLayerNormSpec)]


def test_a_layer_norm_between_bytes_is_one_kernel() -> None:
    net = Net(4, 6, 16)
    real = net(Dequantize(), net(Quantize(DType.I8, GRID), net.x))
    norm = net(LayerNorm(), real, net.constant(16), net.constant(16))
    kinds, specs = net.kernels(net(Dequantize(), net(Quantize(DType.I8, GRID), norm)))
    assert kinds == ["unary", "floatlayernorm", "unary"]
    assert norms(specs) == [("byte", "byte", True)]


def test_a_layer_norm_whose_floats_are_wanted_writes_them() -> None:
    net = Net(4, 6, 16)
    norm = net(LayerNorm(), net.x)
    kinds, specs = net.kernels(norm, net(Dequantize(), net(Quantize(DType.I8, GRID), norm)))
    assert kinds[0] == "floatlayernorm"
    assert norms(specs) == [("f32", "f32", False)]


def test_a_dequantize_that_others_read_too_is_made_once() -> None:
    net = Net(4, 6, 16)
    real = net(Dequantize(), net(Quantize(DType.I8, GRID), net.x))
    kinds, specs = net.kernels(net(Add(), real, net(LayerNorm(), real)))
    assert kinds == ["unary", "unary", "floatlayernorm", "chain"]
    assert norms(specs) == [("f32", "f32", False)]


def test_gains_that_are_computed_follow_in_a_chain() -> None:
    net = Net(4, 6, 16)
    gain = net.graph.add_input("gain", f32(16))
    kinds, specs = net.kernels(net(LayerNorm(), net.x, gain))
    assert kinds == ["floatlayernorm", "chain"]
    assert norms(specs) == [("f32", "f32", False)]


def test_rows_that_are_scattered_are_copied() -> None:
    net = Net(2, 6, 5, 40)
    turned = net(Transpose(CHANNELS_LAST), net.x)
    kinds, _ = net.kernels(net(LayerNorm(), turned))
    assert kinds == ["copy", "floatlayernorm"]


def test_bytes_of_computed_floats_nest_as_these_do() -> None:
    net = Net(2, 30, 5, 40)
    product = net(Mul(), net.x, net.x)
    kinds, specs = net.kernels(net(Dequantize(), net(Quantize(DType.I8, GRID), product)))
    assert kinds == ["chain", "unary", "unary"]
    assert [spec.loops.contiguous for spec in specs[1:]] == [True, True]  # type: ignore[attr-defined]


def test_an_image_of_many_channels_is_quantized_and_then_turned() -> None:
    net = Net(1, 30, 20, 40)
    kinds, specs = net.kernels(net(Dequantize(), net(Quantize(DType.I8, GRID), net.x)))
    assert kinds[:2] == ["unary", "copy"]
    assert specs[0].loops.contiguous  # type: ignore[attr-defined]


def test_a_sum_of_differently_nested_operands_reads_both_in_a_row() -> None:
    net = Net(2, 30, 5, 40)
    other = net.graph.add_input("y", f32(2, 5, 40, 30))
    turned = net(Transpose((0, 3, 1, 2)), other)
    kinds, specs = net.kernels(net(Add(), net.x, turned))
    assert kinds == ["copy", "chain"]
    assert all(spec.loops.contiguous for spec in specs if isinstance(spec, ChainSpec))
    net = Net(2, 30, 5, 40)
    a = net(Quantize(DType.I8, GRID), net(Mul(), net.x, net.x))
    b = net(Quantize(DType.I8, GRID), net.graph.add_input("y", f32(2, 40, 30, 5)))
    total = net(QAdd(out=GRID), a, net(Transpose((0, 2, 3, 1)), b))
    _, specs = net.kernels(net(Dequantize(), total))
    assert [spec.loops.contiguous for spec in specs if isinstance(spec, BinarySpec)] == [True]
