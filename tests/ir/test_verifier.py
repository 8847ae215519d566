"""Each rule of the IR, broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from octavo.ir import DType, Graph, Stage, TensorType, per_tensor, verify
from octavo.ir.errors import VerifyError
from octavo.ir.ops.elementwise import Add, Neg, Relu
from octavo.ir.ops.integer import Requantize
from octavo.ir.ops.quantize import Observer
from octavo.ir.types import f32


def chain() -> Graph:
    graph = Graph()
    x = graph.add_input("x", f32(2))
    a = graph.insert(Relu(), [x], origin="first", names=["a"]).output
    graph.set_outputs([graph.insert(Neg(), [a], origin="second", names=["b"]).output], ["out"])
    return graph


def swapped() -> Graph:
    graph = chain()
    first, second = graph.nodes
    graph.move_before(second, first)
    return graph


def retyped() -> Graph:
    graph = chain()
    next(graph.nodes).outputs[0].type = f32(3)
    return graph


def renamed() -> Graph:
    graph = chain()
    list(graph.nodes)[1].outputs[0].name = "a"
    return graph


def drifted() -> Graph:
    graph = chain()
    next(graph.nodes).outputs[0]._uses.clear()
    return graph


def short() -> Graph:
    graph = chain()
    list(graph.nodes)[1].op = Add()
    return graph


def misfit() -> Graph:
    graph = chain()
    list(graph.nodes)[1].op = Requantize(per_tensor(0.1))
    return graph


def foreign_output() -> Graph:
    graph = chain()
    graph.set_outputs([chain().outputs[0]], ["out"])
    return graph


def foreign_operand() -> Graph:
    graph = chain()
    list(graph.nodes)[1].set_input(0, chain().inputs[0])
    return graph


def foreign_node() -> Graph:
    graph = chain()
    next(graph.nodes).graph = Graph()
    return graph


RULES: list[tuple[Callable[[], Graph], str, str | None]] = [
    (swapped, "neg reads %a before it is made", "second"),
    (retyped, r"relu makes f32\[3\]", "first"),
    (renamed, "two values are named %a", "second"),
    (drifted, "the use list of %a lacks operand 0", "second"),
    (short, "add has 1 operands", "second"),
    (misfit, "requantize", "second"),
    (foreign_output, "output out reads %b, which the graph does not make", None),
    (foreign_operand, "neg reads %x before it is made", "second"),
    (foreign_node, "a node belongs to another graph", "first"),
]


@pytest.mark.parametrize(("broken", "what", "where"), RULES, ids=[rule[0].__name__ for rule in RULES])
def test_a_broken_rule_is_named(broken: Callable[[], Graph], what: str, where: str | None) -> None:
    with pytest.raises(VerifyError, match=what) as caught:
        verify(broken())
    assert caught.value.where == where


def test_a_wrong_type_says_what_was_expected() -> None:
    with pytest.raises(VerifyError) as caught:
        verify(retyped())
    assert caught.value.expected == "f32[2]"


def test_a_valid_graph_passes_in_any_stage() -> None:
    for stage in (None, Stage.FLOAT, Stage.INTEGER):
        verify(chain(), stage)


def test_stages_say_what_may_stand_in_them() -> None:
    graph = chain()
    observed = graph.insert(Observer("b"), [graph.outputs[0]], origin="watch").output
    graph.set_outputs([observed])
    verify(graph, Stage.FLOAT)
    with pytest.raises(VerifyError, match="observer may not stand in the integer stage") as caught:
        verify(graph, Stage.INTEGER)
    assert caught.value.where == "watch"

    integer = Graph()
    x = integer.add_input("x", TensorType(DType.I8, (2,), per_tensor(0.5)))
    integer.set_outputs([integer.insert(Requantize(per_tensor(0.25)), [x]).output])
    verify(integer, Stage.INTEGER)
    with pytest.raises(VerifyError, match="requantize may not stand in the float stage"):
        verify(integer, Stage.FLOAT)
