"""The verbs that change graphs keep every link true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from octavo.ir import DType, Graph, Node, Tensor, TensorType, Value, print_graph, run_graph, verify
from octavo.ir.errors import ModelError, VerifyError
from octavo.ir.ops.cast import Identity
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.elementwise import Add, Neg, Relu
from octavo.ir.ops.scan import TopK
from octavo.ir.ops.shape import Reshape
from octavo.ir.types import Dim, f32
from support.random_graphs import feeds_for, graphs


def diamond() -> tuple[Graph, Value, Value, Value]:
    """Y = relu(x) + neg(relu(x))."""
    graph = Graph()
    x = graph.add_input("x", f32(2))
    a = graph.insert(Relu(), [x], origin="a", names=["a"]).output
    b = graph.insert(Neg(), [a], origin="b", names=["b"]).output
    graph.set_outputs([graph.insert(Add(), [a, b], origin="y", names=["y"]).output])
    return graph, x, a, b


def assert_links(graph: Graph) -> None:
    """Use lists hold just what operands say, in both directions, and the order is one list."""
    nodes = list(graph.nodes)
    assert len(set(nodes)) == len(nodes) == len(graph)
    expected = {(v, (n, i)) for n in nodes for i, v in enumerate(n.inputs)}
    assert {(v, use) for v in graph.values() for use in v.uses} == expected
    for value in graph.values():
        assert value.producer is None or value in value.producer.outputs
        assert value.users == tuple(dict.fromkeys(n for n, _ in value.uses))
    for node in nodes:
        assert node.graph is graph
        assert [v.index for v in node.outputs] == list(range(len(node.outputs)))


def change(draw: st.DrawFn, graph: Graph) -> None:
    """One random change that leaves the graph valid."""
    nodes = list(graph.nodes)
    place = draw(st.integers(0, len(nodes)))
    visible = [*graph.inputs, *(v for n in nodes[:place] for v in n.outputs)]
    value = draw(st.sampled_from(visible))
    verb = draw(st.sampled_from(["insert", "replace", "erase", "set_input", "set_outputs", "wrap"]))
    twins = [v for v in visible if v.type == value.type]
    if verb == "insert":
        before = nodes[place] if place < len(nodes) else None
        graph.insert(Relu(), [value], before=before)
    elif verb == "replace" and len(twins) > 1:
        other = draw(st.sampled_from(twins))
        position = {v: i for i, v in enumerate(graph.values())}
        if position[other] < position[value]:
            graph.replace(value, other)
    elif verb == "erase":
        unused = [n for n in nodes if not any(v.uses or graph.is_output(v) for v in n.outputs)]
        if unused:
            graph.erase(draw(st.sampled_from(unused)))
    elif verb == "set_input" and place < len(nodes) and nodes[place].inputs:
        slot = draw(st.integers(0, len(nodes[place].inputs) - 1))
        fitting = [v for v in visible if v.type == nodes[place].inputs[slot].type]
        nodes[place].set_input(slot, draw(st.sampled_from(fitting)))
    elif verb == "set_outputs":
        graph.set_outputs([value, *graph.outputs[1:]])
    elif verb == "wrap" and value.producer:
        wrapper = graph.insert(Identity(), [value], after=value.producer)
        graph.replace(value, wrapper.output)
        wrapper.set_input(0, value)


@settings(max_examples=150)
@given(st.data())
def test_links_hold_after_any_changes(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    for _ in range(data.draw(st.integers(1, 12))):
        change(data.draw, graph)  # type: ignore[arg-type]
        assert_links(graph)
    verify(graph)


@settings(max_examples=50)
@given(graphs())
def test_a_clone_is_equal_and_apart(graph: Graph) -> None:
    clone = graph.clone()
    verify(clone)
    assert_links(clone)
    assert print_graph(clone) == print_graph(graph)
    assert not set(clone.values()) & set(graph.values())
    clone.insert(Relu(), [clone.inputs[0]])
    assert len(clone) == len(graph) + 1
    assert_links(graph)


@settings(max_examples=50)
@given(graphs(loose_constants=False))
def test_a_clone_with_fixed_shapes_computes_the_same(graph: Graph) -> None:
    feeds = feeds_for(graph)
    fixed = graph.clone(inputs={n: TensorType(DType.F32, a.shape) for n, a in feeds.items()})
    verify(fixed)
    assert all(v.type.is_static for v in fixed.values())
    for name, array in run_graph(graph, feeds).items():
        assert run_graph(fixed, feeds)[name].tobytes() == array.tobytes()


def test_a_dimension_gets_its_size_everywhere() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(Dim("n"), 6))
    y = graph.add_input("y", f32(Dim("n"), 2, 3))
    flat = graph.insert(Reshape((Dim("n"), 6)), [y]).output
    graph.set_outputs([graph.insert(Add(), [x, flat]).output])
    fixed = graph.clone(inputs={"x": f32(4, 6)})
    assert [v.type.shape for v in fixed.inputs] == [(4, 6), (4, 2, 3)]
    assert fixed.outputs[0].type.shape == (4, 6)
    with pytest.raises(ModelError, match=r"\?n is 4 and 5 at once"):
        graph.clone(inputs={"x": f32(4, 6), "y": f32(5, 2, 3)})


def test_replace_moves_uses_and_outputs() -> None:
    graph, x, a, b = diamond()
    graph.set_outputs([a, *graph.outputs])
    graph.replace(a, x)
    assert not a.uses
    assert graph.outputs[0] is x
    assert b.producer is not None
    assert b.producer.inputs == (x,)
    assert_links(graph)
    assert a.producer is not None
    graph.erase(a.producer)
    verify(graph)


def test_an_operand_used_twice_by_one_node() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2))
    node = graph.insert(Add(), [x, x])
    assert x.uses == ((node, 0), (node, 1))
    assert x.users == (node,)
    node.set_input(0, graph.insert(Relu(), [x], before=node).output)
    assert x.uses[0] == (node, 1)
    assert_links(graph)


def test_erase_refuses_what_is_used() -> None:
    graph, _, a, _ = diamond()
    assert a.producer is not None
    with pytest.raises(VerifyError, match="%a is still used"):
        graph.erase(a.producer)
    last = graph.outputs[0].producer
    assert last is not None
    with pytest.raises(VerifyError, match="%y is still used"):
        graph.erase(last)


def test_the_node_at_hand_may_be_erased_while_iterating() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2))
    for _ in range(5):
        graph.insert(Relu(), [x])
    graph.set_outputs([x])
    for node in graph.nodes:
        graph.erase(node)
    assert len(graph) == 0
    assert not x.uses


def test_order() -> None:
    graph, x, a, b = diamond()
    assert a.producer is not None
    assert b.producer is not None
    first = graph.insert(Neg(), [x], before=a.producer, names=["first"])
    second = graph.insert(Neg(), [x], after=first, names=["second"])
    assert [n.outputs[0].name for n in graph.nodes] == ["first", "second", "a", "b", "y"]
    graph.move_before(second, first)
    assert [n.outputs[0].name for n in graph.nodes] == ["second", "first", "a", "b", "y"]
    graph.move_before(b.producer, a.producer)
    with pytest.raises(VerifyError, match="neg reads %a before it is made"):
        verify(graph)


def test_names_are_made_unique_and_printable() -> None:
    graph = Graph()
    names = [graph.fresh_name(hint) for hint in ["a", "a", "a_1", "a", "7", "conv:0", "", "x.y"]]
    assert names == ["a", "a_1", "a_1_1", "a_2", "v7", "conv_0", "v", "x.y"]


def test_a_wrong_operand_names_the_users_place() -> None:
    graph, x, _, _ = diamond()
    odd = graph.add_input("odd", f32(3))
    with pytest.raises(ModelError, match="do not broadcast") as caught:
        graph.insert(Add(), [x, odd], origin="layer1.0")
    assert caught.value.where == "layer1.0: add(%x: f32[2], %odd: f32[3])"


def test_several_outputs() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2, 5))
    node: Node = graph.insert(TopK(2, 1), [x], origin="top", names=["best"])
    assert [v.name for v in node.outputs] == ["best", "topk"]
    with pytest.raises(VerifyError, match="topk has 2 outputs"):
        _ = node.output


def test_constants_by_digest() -> None:
    graph, x, _, _ = diamond()
    data = Tensor.of(np.ones(2, np.float32))
    for _ in range(2):
        graph.constant(data, origin="weight")
    assert graph.constants() == {data.digest: data}
    assert isinstance(list(graph.nodes)[-1].op, Constant)
    assert x.op is None
