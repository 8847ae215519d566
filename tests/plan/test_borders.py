"""Borders are filled beside the kernel that writes the image inside, and take no step of their own."""

from __future__ import annotations

import numpy as np
from octavo.backends.bundle.program import PlanProgram
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.plan.planner import plan_graph
from octavo.backends.tvm.isa import get_isa
from octavo.ir import Graph
from octavo.ir.constants import Tensor
from octavo.ir.graph import Value
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.shape import Concat
from octavo.ir.types import f32


def plan(graph: Graph, *outputs: Value) -> PlanProgram:
    graph.set_outputs(list(outputs))
    return plan_graph(graph, get_isa("avx2"), WeightStore(), "n")[0]


def conv(graph: Graph, x: Value, kernel: int) -> Value:
    channels = x.type.static_shape[1]
    weight = graph.constant(Tensor.of(np.ones((8, channels, kernel, kernel), np.float32)))
    padding = ((kernel // 2, kernel // 2),) * 2
    return graph.insert(Conv((1, 1), padding, (1, 1)), [x, weight]).output


def borders(program: PlanProgram) -> list[tuple[str, int]]:
    """For every step its kernel and the number of borders beside it."""
    return [(step.work.kernel, len(step.companions)) for step in program.steps]


def test_the_first_kernel_to_write_the_image_fills_its_border() -> None:
    graph = Graph("n")
    x = graph.add_input("x", f32(1, 8, 6, 6))
    inner = conv(graph, x, 1)
    program = plan(graph, conv(graph, inner, 3))
    assert [kind for kind, count in borders(program) if count] == ["floatconv"]
    assert "border" not in dict(borders(program))
    (step,) = (step for step in program.steps if step.companions)
    assert step.work.written == 4 * 8 * 8 * 8, "the image and its border"


def test_a_concat_of_two_images_has_one_border() -> None:
    graph = Graph("n")
    x = graph.add_input("x", f32(1, 8, 6, 6))
    both = graph.insert(Concat(axis=1), [conv(graph, x, 1), conv(graph, x, 1)]).output
    assert [count for kind, count in borders(plan(graph, conv(graph, both, 3))) if kind == "floatconv"] == [1, 0, 0]


def test_a_copy_of_the_input_is_made_with_its_border() -> None:
    graph = Graph("n")
    x = graph.add_input("x", f32(1, 8, 6, 6))
    assert borders(plan(graph, conv(graph, x, 3)))[0] == ("copy", 1)
