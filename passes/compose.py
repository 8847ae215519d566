"""Chains of functions of one element become one function before the freeze, so that int8 rounds once and not at each.

``conv -> hard_swish -> mul(0.5) -> add(1.0) -> conv`` would be three tables with a grid each; composed, it is one
table, computed in float64. What the freeze leaves in float is taken apart again by ``decompose``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph, Node, Value
from ..ir.op import Op, Quantization
from ..ir.ops.elementwise import Add, Clamp, Div, Mul, Relu, Sub, Unary
from ..ir.ops.function import Call, Expression, Function, format_body, size, substitute
from ..ir.ops.logic import Maximum, Minimum
from .analysis import scalar_of, used_once
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite

MOST_OPS = 24
"""A body of more calls than this is not composed further."""


@register_pass
@dataclass(frozen=True)
class Compose(Pass):
    """Compose chains of functions of one element into one function each.

    Run it after ``fuse``: a scale that fits into weights and a clamp that fits into an epilogue cost nothing there.
    """

    name: ClassVar[str] = "compose"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        return rewrite(graph, (function_of_function, function_of_both), context)


@pattern(Unary, Add, Sub, Mul, Div, Maximum, Minimum)
def function_of_function(node: Node, rewriter: Rewriter) -> bool:
    """A function of the result of another one that has no other use -> one function."""
    outer = _function(node)
    if outer is None:
        return False
    expression, variable = outer
    inner = _function(variable.producer) if variable.producer else None
    if inner is None or _mere_clamps(node, variable.producer):
        return False
    if not used_once(variable):
        return rewriter.note(node, f"%{variable.name} has other uses")
    return _replace(node, substitute(expression, inner[0]), inner[1], rewriter)


@pattern(Add, Sub, Mul, Div, Maximum, Minimum)
def function_of_both(node: Node, rewriter: Rewriter) -> bool:
    """``op(f(x), g(x))``, either of them perhaps x itself -> one function of x."""
    a, b = node.inputs
    if a.type != b.type or not a.type.dtype.is_float or not _plain(node.op):
        return False
    for (left, x), (right, y) in ((m, n) for m in _views(a) for n in _views(b)):
        if x is y and (left is not None or right is not None):
            return _replace(node, Call(node.op, (left, right)), x, rewriter)
    return False


def _replace(node: Node, expression: Expression, variable: Value, rewriter: Rewriter) -> bool:
    if size(expression) > MOST_OPS:
        return rewriter.note(node, f"the composed function would have more than {MOST_OPS} ops")
    return rewriter.replace(node, rewriter.insert(Function(format_body(expression)), variable))


def _function(node: Node) -> tuple[Expression, Value] | None:
    """``node`` as a function of one of its operands, elementwise in float; None when it is none."""
    if not node.output.type.dtype.is_float or not _plain(node.op):
        return None
    if isinstance(node.op, Function):
        return node.op.expression, node.inputs[0]
    if isinstance(node.op, Unary):
        return Call(node.op, (None,)), node.inputs[0]
    if not isinstance(node.op, Add | Sub | Mul | Div | Maximum | Minimum):
        return None
    for position, variable in enumerate(node.inputs):
        number = scalar_of(node.inputs[1 - position])
        if number is not None and variable.type == node.output.type and scalar_of(variable) is None:
            return Call(node.op, (number, None) if position else (None, number)), variable
    return None


def _views(value: Value) -> list[tuple[Expression, Value]]:
    """A value as itself, and as a function of what its producer reads if nobody else uses it."""
    made = _function(value.producer) if value.producer and used_once(value) else None
    return [(None, value), *([made] if made else [])]


def _plain(op: Op) -> bool:
    """Whether an op has the form that a body can hold: a table function, or arithmetic without a fused clamp."""
    return op.rule is Quantization.TABLE if isinstance(op, Unary) else getattr(op, "clamp", None) is None


def _mere_clamps(node: Node, producer: Node | None) -> bool:
    """Whether both are clamps: ``canonicalize`` merges them, and a clamp alone is cheaper than a table."""
    return isinstance(node.op, Relu | Clamp) and producer is not None and isinstance(producer.op, Relu | Clamp)
