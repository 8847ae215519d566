"""Every op has kernels, or a written reason why it has none; refusals come all at once, under the user's names."""

from __future__ import annotations

import pytest
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.plan.planner import plan_graph
from octavo.backends.tvm.isa import get_isa
from octavo.backends.tvm.lower.refusals import REFUSALS
from octavo.backends.tvm.lower.registry import LOWERINGS, find_lowering
from octavo.ir import Graph, all_ops, find_op
from octavo.ir.errors import UnsupportedError
from octavo.ir.op import Op
from octavo.ir.ops.cast import Cast, Identity
from octavo.ir.ops.elementwise import Relu
from octavo.ir.ops.quantize import Observer
from octavo.ir.types import DType, f32

find_lowering(Identity())
BYTES = {"constant"}
"""Ops that are bytes of the bundle."""


@pytest.mark.parametrize("op", list(all_ops()), ids=lambda op: op.name)
def test_every_op_is_lowered_or_refused(op: type[Op]) -> None:
    assert (op in LOWERINGS) + (op.name in REFUSALS) + (op.name in BYTES) == 1


def test_refusals_are_of_ops_that_exist() -> None:
    assert [find_op(name).name for name in REFUSALS] == list(REFUSALS)


def test_all_refusals_come_at_once() -> None:
    graph = Graph("n")
    x = graph.add_input("x", f32(4, 4))
    first = graph.insert(Observer("x"), [x], origin="block.seen")
    second = graph.insert(Relu(), [first.output], origin="block.relu")
    third = graph.insert(find_op("determinant")(), [second.output], origin="head.det")
    graph.set_outputs([third.output])
    with pytest.raises(UnsupportedError) as caught:
        plan_graph(graph, get_isa("avx2"), WeightStore(), "n")
    assert {op.name: op.places for op in caught.value.ops} == {
        "observer": ("block.seen",),
        "determinant": ("head.det",),
    }


@pytest.mark.parametrize("op", [Cast(DType.F64), Cast(DType.F16), Cast(DType.U32)], ids=str)
def test_types_without_kernels_are_refused(op: Op) -> None:
    graph = Graph("n")
    x = graph.add_input("x", f32(4, 4))
    wide = graph.insert(op, [x], origin="wide").output
    graph.set_outputs([graph.insert(find_op("abs")(), [wide], origin="size").output])
    with pytest.raises(UnsupportedError) as caught:
        plan_graph(graph, get_isa("avx2"), WeightStore(), "n")
    assert {op.name for op in caught.value.ops} == {"cast", "abs"}
