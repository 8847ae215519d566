"""Functions of one int8 element become tables, and tables of tables one table.

After the freeze an op whose only variable operand is one int8 tensor, elementwise, is a function of 256 arguments: its
exact definition is evaluated on all of them, and no arithmetic remains. A chain of such functions is again one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.constants import Tensor
from ..ir.graph import Graph, Node, Value
from ..ir.ops.constant import Constant
from ..ir.ops.integer import IntegerOp, QAdd, QMul, QSub, QTable, Requantize
from ..ir.types import TensorType
from .analysis import used_once
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite

ARGUMENTS = np.arange(-128, 128, dtype=np.int8)
"""Every int8, in the order of a table's entries."""


@register_pass
@dataclass(frozen=True)
class Tabulate(Pass):
    """Turn chains of functions of one int8 element into one table of 256 entries."""

    name: ClassVar[str] = "tabulate"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def apply(self, graph: Graph, context: PassContext) -> bool:
        return rewrite(graph, (function_to_table, table_of_function), context)


@pattern(QAdd, QSub, QMul)
def function_to_table(node: Node, rewriter: Rewriter) -> bool:
    """Arithmetic with one constant number -> table."""
    variable = _variable(node)
    if variable is None:
        return False
    return rewriter.replace(node, _insert(rewriter, node, variable, _entries(node, ARGUMENTS)))


@pattern(QTable, Requantize)
def table_of_function(node: Node, rewriter: Rewriter) -> bool:
    """Table or requantization of the result of another one that has no other use -> one table."""
    inner = node.inputs[0].producer
    if inner is None or not isinstance(inner.op, QTable | Requantize):
        return False
    if not used_once(node.inputs[0]):
        return rewriter.note(node, f"the output of {inner.where} has other uses")
    composed = _entries(node, _entries(inner, ARGUMENTS))
    return rewriter.replace(node, _insert(rewriter, node, inner.inputs[0], composed))


def _variable(node: Node) -> Value | None:
    """The operand that is no constant number, if there is just one and it has the shape of the result."""
    variables = [v for v in node.inputs if _number(v) is None]
    if len(variables) != 1 or variables[0].type.shape != node.output.type.shape:
        return None
    return None if isinstance(variables[0].op, Constant) else variables[0]


def _number(value: Value) -> np.ndarray | None:
    """The one stored number of a constant whose elements are all equal, of shape (1,)."""
    if not isinstance(value.op, Constant) or value.op.data.size == 0:
        return None
    if value.type.quant is None or value.type.quant.axis is not None:
        return None
    flat = value.op.data.numpy().reshape(-1)
    return flat[:1] if bool((flat == flat[0]).all()) else None


def _entries(node: Node, arguments: np.ndarray) -> np.ndarray:
    """The exact results of a function node on 256 arguments."""
    assert isinstance(node.op, IntegerOp)
    operands = [arguments if (number := _number(v)) is None else number for v in node.inputs]
    types = [TensorType(v.type.dtype, o.shape, v.type.quant) for v, o in zip(node.inputs, operands, strict=True)]
    return np.asarray(node.op.exact(types, *operands))


def _insert(rewriter: Rewriter, node: Node, variable: Value, entries: np.ndarray) -> Value:
    return rewriter.insert(QTable(Tensor.of(entries), node.output.type.quant), variable)
