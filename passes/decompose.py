"""What has no kernel of its own, as the ops it is made of: the inverse of ``compose``, and rare resampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.ops.elementwise import Add, Mul
from ..ir.ops.function import Call, Expression, Function
from ..ir.ops.resize import Resize
from ..ir.ops.shape import Gather
from ..ir.types import DType
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite


@register_pass
@dataclass(frozen=True)
class Decompose(Pass):
    """Take composed functions, and resampling with wide filters, apart into the ops they are made of."""

    name: ClassVar[str] = "decompose"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        return rewrite(graph, (take_apart, wide_filter), context)


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


@pattern(Resize)
def wide_filter(node: Node, rewriter: Rewriter) -> bool:
    """Cubic or antialiased resampling -> along each axis, the sum of weighted gathers."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, Resize)
    if not (op.mode == "cubic" or op.antialias) or op.extrapolation is not None or not x.type.is_static:
        return False
    if x.type.dtype is not DType.F32:
        return False
    for axis, size in enumerate(x.type.static_shape):
        if (op.size[axis], op.scale[axis], op.offset[axis]) != (size, 1.0, 0.0):
            x = _resampled(x, axis, *op.taps(axis, size), rewriter)
    return rewriter.replace(node, x)


def _resampled(x: Value, axis: int, indices: np.ndarray, weights: np.ndarray, rewriter: Rewriter) -> Value:
    wide = (-1, *[1] * (x.type.rank - axis - 1))
    parts: list[Value] = []
    for index, weight in zip(indices.T, weights.T, strict=True):
        part = rewriter.insert(Gather(axis), x, rewriter.constant(np.ascontiguousarray(index)))
        parts.append(rewriter.insert(Mul(), part, rewriter.constant(weight.astype(np.float32).reshape(wide))))
    total = parts[0]
    for part in parts[1:]:
        total = rewriter.insert(Add(), total, part)
    return total
