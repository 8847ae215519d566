"""The inverse of ``compose``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph, Node, Value
from ..ir.ops.function import Call, Expression, Function
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite


@register_pass
@dataclass(frozen=True)
class Decompose(Pass):
    """Take composed functions apart into the ops they are made of."""

    name: ClassVar[str] = "decompose"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        return rewrite(graph, (take_apart,), context)


@pattern(Function)
def take_apart(node: Node, rewriter: Rewriter) -> bool:
    """Function -> its ops."""
    assert isinstance(node.op, Function)
    dtype = node.output.type.dtype.numpy

    def build(expression: Expression) -> Value:
        match expression:
            case None:
                return node.inputs[0]
            case Call(op=op, operands=operands):
                return rewriter.insert(op, *map(build, operands))
            case _:
                return rewriter.constant(dtype.type(expression))

    return rewriter.replace(node, build(node.op.expression))
