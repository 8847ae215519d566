"""Chains of reshapes and transposes: canonical ones move every element to the same place, in as few moves."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from octavo.ir import Graph, Op, run_graph
from octavo.ir.ops.shape import Reshape, Transpose
from octavo.ir.types import f32
from octavo.passes import PassContext, Pipeline
from octavo.passes.canonicalization.movement import common_parts

SIZES = (24, 36, 48, 60, 64)
CANONICALIZE = Pipeline.parse("canonicalize")


@st.composite
def shapes(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Any shape of so many elements, axes of one element among them."""
    axes: list[int] = []
    while size > 1:
        axes.append(draw(st.sampled_from([n for n in range(2, size + 1) if size % n == 0])))
        size //= axes[-1]
    if draw(st.booleans()):
        axes.insert(draw(st.integers(0, len(axes))), 1)
    return tuple(axes)


@st.composite
def chains(draw: st.DrawFn) -> Graph:
    graph, size = Graph("n"), draw(st.sampled_from(SIZES))
    value = graph.add_input("x", f32(*draw(shapes(size))))
    for _ in range(draw(st.integers(2, 6))):
        op: Op = Transpose(tuple(draw(st.permutations(range(value.type.rank)))))
        if draw(st.booleans()):
            op = Reshape(draw(shapes(size)))
        value = graph.insert(op, [value]).output
    graph.set_outputs([value], ["y"])
    return graph


def transposes(graph: Graph) -> int:
    return sum(isinstance(node.op, Transpose) for node in graph.nodes)


@given(chains())
def test_elements_go_where_they_went(graph: Graph) -> None:
    shape = graph.inputs[0].type.static_shape
    feeds = {"x": np.arange(math.prod(shape), dtype=np.float32).reshape(shape)}
    before, count = run_graph(graph, feeds)["y"], transposes(graph)
    CANONICALIZE.run(graph, PassContext())
    np.testing.assert_array_equal(run_graph(graph, feeds)["y"], before)
    assert transposes(graph) <= count


@given(st.sampled_from(SIZES).flatmap(lambda size: st.tuples(shapes(size), shapes(size))))
def test_common_parts_make_up_both_shapes(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    sizes, *numbers = common_parts(*pair)
    if not sizes:
        assert pair[0] != pair[1]
        return
    for shape, parts in zip(pair, numbers, strict=True):
        assert [math.prod(sizes[part] for part in each) for each in parts] == list(shape)
        assert [part for each in parts for part in each] == list(range(len(sizes)))
