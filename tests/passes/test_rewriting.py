from __future__ import annotations

import time

import pytest
from octavo.ir import Graph, Node, print_graph, verify
from octavo.ir.errors import PassError
from octavo.ir.ops.elementwise import Mul, Neg, Relu, Sigmoid
from octavo.ir.types import f32
from octavo.passes import PassContext, Pipeline, Rewriter, pattern, rewrite
from octavo.passes.base import Remark
from support.pass_graphs import relu_chain


@pattern(Relu)
def relu_of_relu(node: Node, rewriter: Rewriter) -> bool:
    """Relu of a relu -> one."""
    return isinstance(node.inputs[0].op, Relu) and rewriter.replace(node, node.inputs[0])


@pattern(Relu)
def relu_to_sigmoid(node: Node, rewriter: Rewriter) -> bool:
    """Relu -> sigmoid."""
    return rewriter.replace(node, rewriter.insert(Sigmoid(), node.inputs[0]))


@pattern(Sigmoid)
def sigmoid_to_relu(node: Node, rewriter: Rewriter) -> bool:
    """Sigmoid -> relu."""
    return rewriter.replace(node, rewriter.insert(Relu(), node.inputs[0]))


@pattern(Relu)
def only_first(node: Node, rewriter: Rewriter) -> bool:
    """Relu of an input -> its negation; says why not elsewhere."""
    if node.inputs[0].producer:
        return rewriter.note(node, "it does not read an input")
    return rewriter.replace(node, rewriter.insert(Neg(), node.inputs[0]))


def test_patterns_fire_to_a_fixpoint() -> None:
    graph = relu_chain(5)
    assert rewrite(graph, [relu_of_relu])
    assert [node.op for node in graph.nodes] == [Relu()]
    assert not rewrite(graph, [relu_of_relu])


def test_a_replacement_takes_over_name_and_origin() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2))
    y = graph.insert(Relu(), [x], origin="model.act", names=["act"]).output
    graph.set_outputs([y])
    rewrite(graph, [relu_to_sigmoid])
    (node,) = graph.nodes
    assert (node.op, node.origin, node.output.name) == (Sigmoid(), "model.act", "act")
    verify(graph)


def test_what_only_the_replaced_node_used_goes_too() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2))
    inner = graph.insert(Mul(), [x, graph.insert(Neg(), [x]).output]).output
    graph.set_outputs([graph.insert(Relu(), [inner]).output])

    @pattern(Relu)
    def forget(node: Node, rewriter: Rewriter) -> bool:
        return node.inputs[0] is not x and rewriter.replace(node, x)

    rewrite(graph, [forget])
    assert list(graph.nodes) == []
    assert graph.outputs == (x,)


def test_rewriting_without_end_names_the_patterns() -> None:
    with pytest.raises(PassError, match=r"does not end: relu-to-sigmoid \(\d+ times\), sigmoid-to-relu"):
        rewrite(relu_chain(1), [relu_to_sigmoid, sigmoid_to_relu])


def test_a_replacement_of_another_type_is_refused() -> None:
    @pattern(Relu)
    def wrong(node: Node, rewriter: Rewriter) -> bool:
        return rewriter.replace(node, rewriter.graph.add_input("other", f32(3)))

    with pytest.raises(PassError, match="wrong would replace"):
        rewrite(relu_chain(1), [wrong])


def test_patterns_say_why_they_did_not_match() -> None:
    remarks: list[Remark] = []
    rewrite(relu_chain(2), [only_first], PassContext(explain=remarks.append))
    assert [str(r) for r in remarks] == ["only-first left %relu_1: it does not read an input"]


@pytest.mark.parametrize("text", ["canonicalize", "simplify", "prepare"])
def test_long_chains_are_quick(text: str) -> None:
    graph = Graph()
    value = graph.add_input("x", f32(2))
    for step in range(5000):
        value = graph.insert((Relu(), Neg(), Sigmoid())[step % 3], [value]).output
    graph.set_outputs([value])
    start = time.perf_counter()
    Pipeline.parse(text).run(graph)
    assert time.perf_counter() - start < 10.0
    assert len(graph) == 5000


def test_collapsing_chains_are_linear() -> None:
    seconds = []
    for length in (2500, 10000):
        graph = relu_chain(length)
        start = time.perf_counter()
        rewrite(graph, [relu_of_relu])
        seconds.append(time.perf_counter() - start)
        assert "relu(%x)" in print_graph(graph)
    assert seconds[1] < 12 * seconds[0] + 0.5
