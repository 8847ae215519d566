from __future__ import annotations

import numpy as np
import pytest
from octavo.ir import Graph, Op, Value
from octavo.ir.constants import Tensor
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.integer import QAdd, QMul, QSub, QTable, Requantize
from octavo.ir.types import DType, QuantParams, TensorType, per_tensor
from octavo.passes import Pipeline
from octavo.passes.observers import NumericsCheck

GRID = per_tensor(0.03, 7)
ALL = {"x": np.arange(-128, 128, dtype=np.int8).reshape(2, 128)}


def start() -> tuple[Graph, Value]:
    graph = Graph()
    return graph, graph.add_input("x", TensorType(DType.I8, (2, 128), per_tensor(0.02, -5)))


def number(graph: Graph, value: int, *shape: int, quant: QuantParams | None = None) -> Value:
    data = Tensor.of(np.full(shape, value, np.int8))
    return graph.insert(Constant(data, quant or per_tensor(0.5, 3)), ()).output


def random_table(seed: int) -> QTable:
    return QTable(Tensor.of(np.random.default_rng(seed).integers(-128, 128, 256).astype(np.int8)), GRID)


def tabulated(graph: Graph) -> list[Op]:
    Pipeline.parse("tabulate").run(graph, None, [NumericsCheck([ALL])])
    return [node.op for node in graph.nodes if not isinstance(node.op, Constant)]


@pytest.mark.parametrize("op", [QAdd((-20.0, 90.0), GRID), QSub(None, GRID), QMul(None, GRID), QMul(None, None)])
@pytest.mark.parametrize("constant_first", [False, True])
def test_arithmetic_with_a_number_is_a_table(op: Op, constant_first: bool) -> None:
    graph, x = start()
    operands = [x, number(graph, -9, 1, 1)]
    graph.set_outputs([graph.insert(op, operands[::-1] if constant_first else operands).output], ["y"])
    (table,) = tabulated(graph)
    assert isinstance(table, QTable)


def test_a_chain_of_functions_is_one_table() -> None:
    graph, x = start()
    value = x
    for op in (random_table(1), Requantize(per_tensor(0.1, 2)), random_table(2)):
        value = graph.insert(op, [value]).output
    value = graph.insert(QAdd(None, GRID), [value, number(graph, 4, 128)]).output
    graph.set_outputs([value], ["y"])
    assert len(tabulated(graph)) == 1


def test_what_is_used_elsewhere_is_kept() -> None:
    graph, x = start()
    first = graph.insert(random_table(1), [x]).output
    second = graph.insert(random_table(2), [first]).output
    graph.set_outputs([first, second], ["a", "b"])
    assert len(tabulated(graph)) == 2


def test_constants_that_differ_or_broadcast_the_result_are_no_numbers() -> None:
    graph, x = start()
    many = graph.insert(Constant(Tensor.of(np.arange(128, dtype=np.int8)), GRID), ()).output
    first = graph.insert(QMul(None, GRID), [x, many]).output
    wider = graph.insert(QAdd(None, GRID), [first, number(graph, 1, 3, 2, 128)]).output
    graph.set_outputs([wider], ["y"])
    assert tabulated(graph) == [QMul(None, GRID), QAdd(None, GRID)]
