"""Activations that clamp: ``relu`` for the bounds (0, inf), ``clamp`` for all others, one instead of several."""

from __future__ import annotations

import math

from ...ir.graph import Node
from ...ir.op import Op
from ...ir.ops.elementwise import Clamp, LeakyRelu, Relu
from ...ir.ops.logic import Maximum, Minimum, PRelu
from ..analysis import scalar_of
from ..fuse import UNBOUNDED, Bounds, bounds_of, compose
from ..rewriting import Rewriter, pattern


@pattern(Relu, Clamp)
def clamp_normal_form(node: Node, rewriter: Rewriter) -> bool:
    """Clamp of a clamp -> one; without bounds -> nothing; with bounds (0, inf) -> relu."""
    value = node.inputs[0]
    bounds = bounds_of(node.op)
    if value.producer and isinstance(value.op, Relu | Clamp):
        bounds = compose(bounds_of(value.op), bounds)
        value = value.producer.inputs[0]
    if bounds == UNBOUNDED:
        return rewriter.replace(node, value)
    op = clamp_op(bounds)
    if op == node.op and value is node.inputs[0]:
        return False
    return rewriter.replace(node, rewriter.insert(op, value))


@pattern(Maximum, Minimum)
def extreme_of_constant(node: Node, rewriter: Rewriter) -> bool:
    """Maximum or minimum with one constant number -> clamp."""
    x, bound = node.inputs
    limit = scalar_of(bound)
    if limit is None or x.type != node.output.type or not x.type.dtype.is_float:
        return False
    bounds = (limit, math.inf) if isinstance(node.op, Maximum) else (-math.inf, limit)
    return rewriter.replace(node, rewriter.insert(clamp_op(bounds), x))


@pattern(PRelu)
def prelu_of_one_slope(node: Node, rewriter: Rewriter) -> bool:
    """Parametric relu with one slope -> leaky relu."""
    x, slope = node.inputs
    number = scalar_of(slope)
    return number is not None and rewriter.replace(node, rewriter.insert(LeakyRelu(number), x))


@pattern(LeakyRelu)
def leaky_relu_of_slope_zero(node: Node, rewriter: Rewriter) -> bool:
    """Leaky relu with slope 0 -> relu; with slope 1 -> nothing."""
    match node.op:
        case LeakyRelu(slope=0.0):
            return rewriter.replace(node, rewriter.insert(Relu(), node.inputs[0]))
        case LeakyRelu(slope=1.0):
            return rewriter.replace(node, node.inputs[0])
        case _:
            return False


def clamp_op(bounds: Bounds) -> Op:
    """The canonical op that clamps to ``bounds``."""
    return Relu() if bounds == (0.0, math.inf) else Clamp(*bounds)


PATTERNS = (clamp_normal_form, extreme_of_constant, prelu_of_one_slope, leaky_relu_of_slope_zero)
