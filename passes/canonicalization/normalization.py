"""Layer norm and softmax written out in pieces -> one op."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...ir.graph import Node, Value
from ...ir.op import Op
from ...ir.ops.elementwise import Add, Div, Exp, Mul, Sqrt, Sub
from ...ir.ops.math import Reciprocal
from ...ir.ops.norm import LayerNorm, Softmax
from ...ir.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from ..analysis import array_of, scalar_of, used_once
from ..rewriting import Rewriter, pattern


@pattern(Div, Mul)
def layer_norm(node: Node, rewriter: Rewriter) -> bool:
    """``(x - mean) / sqrt(mean((x - mean) ** 2) + epsilon)`` over the last axes -> layer norm."""
    for centered, scale in _quotients(node):
        deviation = _operands(centered, Sub)
        variance = _variance_under_root(scale, isinstance(node.op, Mul))
        if deviation is None or variance is None:
            continue
        x, mean = deviation
        square, epsilon = variance
        axes = _trailing_mean(mean, x)
        if axes is None or _trailing_mean(square, x) != axes:
            continue
        assert square.producer is not None
        if not _is_square(square.producer.inputs[0], x, mean):
            continue
        return rewriter.replace(node, rewriter.insert(LayerNorm(axes, epsilon), x))
    return False


@pattern(Mul, Add)
def layer_norm_affine(node: Node, rewriter: Rewriter) -> bool:
    """``layer_norm(x) * c`` -> its scale; ``layer_norm(x) + c`` -> its bias."""
    value, other = node.inputs
    norm, array = value.producer, array_of(other)
    if norm is None or not isinstance(norm.op, LayerNorm) or array is None or getattr(node.op, "clamp", None):
        return False
    tail = array.shape[max(array.ndim - norm.op.rank, 0) :]
    if value.type.shape[value.type.rank - norm.op.rank :] != tail or array.size != np.prod(tail):
        return False
    if not used_once(value):
        return rewriter.note(node, f"the output of {norm.where} has other uses")
    x, scale = norm.inputs[0], list(norm.inputs[1:])
    if isinstance(node.op, Mul) and scale:
        return rewriter.note(node, f"{norm.where} has a scale already")
    if len(scale) > 1:
        return rewriter.note(node, f"{norm.where} has a bias already")
    parameter = rewriter.constant(array.reshape(tail), instead=other)
    if isinstance(node.op, Add) and not scale:
        scale = [rewriter.constant(np.ones(tail, array.dtype), "scale")]
    return rewriter.replace(node, rewriter.insert(norm.op, x, *scale, parameter, origin=norm.origin))


@pattern(Div)
def softmax(node: Node, rewriter: Rewriter) -> bool:
    """``exp(x) / sum(exp(x))``, with the maximum subtracted or not -> softmax."""
    exponentials, total = node.inputs
    inner = _operands(exponentials, Exp)
    if inner is None or total.producer is None or total.producer.inputs != (exponentials,):
        return False
    match total.op:
        case ReduceSum(axes=(axis,), keep=True):
            return rewriter.replace(node, rewriter.insert(Softmax(axis), _without_maximum(inner[0], axis)))
        case _:
            return False


@pattern(Softmax, LayerNorm)
def negative_axis(node: Node, rewriter: Rewriter) -> bool:
    """Axis counted from the back -> from the front."""
    match node.op:
        case Softmax(axis=axis) if axis < 0:
            op = dataclasses.replace(node.op, axis=axis + node.output.type.rank)
            return rewriter.replace(node, rewriter.insert(op, node.inputs[0]))
        case _:
            return False


def _quotients(node: Node) -> list[tuple[Value, Value]]:
    """(dividend, divisor) of a division; of a product, either operand may be the reciprocal."""
    a, b = node.inputs
    return [(a, b)] if isinstance(node.op, Div) else [(a, b), (b, a)]


def _variance_under_root(value: Value, inverted: bool) -> tuple[Value, float] | None:
    """The variance and epsilon of ``sqrt(variance + epsilon)``, or of the reciprocal of that."""
    if inverted:
        reciprocal = _operands(value, Reciprocal)
        if reciprocal is None:
            return None
        value = reciprocal[0]
    root = _operands(value, Sqrt)
    total = _operands(root[0], Add) if root else None
    if total is None:
        return None
    epsilon = scalar_of(total[1])
    return None if epsilon is None else (total[0], epsilon)


def _trailing_mean(value: Value, x: Value) -> int | None:
    """Over how many last axes ``value`` is a mean that kept them; None when it is something else."""
    match value.op:
        case ReduceMean(axes=axes, keep=True) if axes and axes == tuple(range(x.type.rank - len(axes), x.type.rank)):
            return len(axes)
        case _:
            return None


def _is_square(value: Value, x: Value, mean: Value) -> bool:
    """Whether ``value`` is ``(x - mean) ** 2``, for any node that computes the same difference."""
    factors = _operands(value, Mul)
    return factors is not None and all(_operands(f, Sub) == (x, mean) for f in factors)


def _without_maximum(value: Value, axis: int) -> Value:
    """``x`` of ``x - max(x)``; any other value is itself: softmax does not care."""
    difference = _operands(value, Sub)
    if difference is None:
        return value
    x, largest = difference
    match largest.op:
        case ReduceMax(axes=(found,), keep=True) if found == axis and largest.producer:
            return x if largest.producer.inputs == (x,) else value
        case _:
            return value


def _operands(value: Value, kind: type[Op]) -> tuple[Value, ...] | None:
    """The operands of the op that made ``value``, if it is of that kind and has no fused activation."""
    if value.producer is None or not isinstance(value.op, kind) or getattr(value.op, "clamp", None):
        return None
    return value.producer.inputs


PATTERNS = (layer_norm, layer_norm_affine, softmax, negative_axis)
