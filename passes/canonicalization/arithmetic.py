"""Arithmetic with constants: neutral elements go, constants stand right and merge, sub and div become add and mul."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Node, Value
from ...ir.ops.elementwise import Add, Div, Mul, Neg, Sqrt, Sub
from ...ir.ops.logic import Maximum, Minimum, Pow
from ...ir.ops.math import Reciprocal
from ..analysis import array_of, scalar_of, used_once
from ..rewriting import Rewriter, pattern


@pattern(Add, Sub, Mul, Div, Pow)
def neutral(node: Node, rewriter: Rewriter) -> bool:
    """``x + 0``, ``x - 0``, ``x * 1``, ``x / 1`` and ``x ** 1`` -> x."""
    x, other = node.inputs
    match node.op:
        case Add(clamp=None) | Sub():
            element = 0.0
        case Mul(clamp=None) | Div() | Pow():
            element = 1.0
        case _:
            return False
    return scalar_of(other) == element and x.type == node.output.type and rewriter.replace(node, x)


@pattern(Add, Mul, Maximum, Minimum)
def constant_right(node: Node, rewriter: Rewriter) -> bool:
    """Constant on the left of a commutative op -> on the right."""
    a, b = node.inputs
    if array_of(a) is None or array_of(b) is not None:
        return False
    return rewriter.replace(node, rewriter.insert(node.op, b, a))


@pattern(Sub)
def subtract_constant(node: Node, rewriter: Rewriter) -> bool:
    """``x - c`` -> ``x + (-c)``."""
    x, other = node.inputs
    array = array_of(other)
    if array is None or array_of(x) is not None or not x.type.dtype.is_float:
        return False
    return rewriter.replace(node, rewriter.insert(Add(), x, rewriter.constant(-array, instead=other)))


@pattern(Div)
def divide_by_constant(node: Node, rewriter: Rewriter) -> bool:
    """``x / c`` -> ``x * (1 / c)``, exact where every element of c is a power of two, else rounded once more."""
    x, other = node.inputs
    array = array_of(other)
    if array is None or array_of(x) is not None or not x.type.dtype.is_float:
        return False
    with np.errstate(divide="ignore", over="ignore"):
        inverse = (1.0 / array.astype(np.float64)).astype(array.dtype)
    if not (np.isfinite(inverse).all() and inverse.all()):
        return rewriter.note(node, "an element of the divisor has no reciprocal")
    return rewriter.replace(node, rewriter.insert(Mul(), x, rewriter.constant(inverse, instead=other)))


@pattern(Add, Mul)
def merge_constants(node: Node, rewriter: Rewriter) -> bool:
    """``(x + c) + d`` -> ``x + (c + d)``, and for products alike, where the inner one has no other use."""
    inner, outer = node.inputs
    producer = inner.producer
    if producer is None or not isinstance(producer.op, type(node.op)) or not used_once(inner):
        return False
    a, b = array_of(producer.inputs[1]), array_of(outer)
    floats = inner.type.dtype.is_float
    if a is None or b is None or array_of(producer.inputs[0]) is not None or getattr(producer.op, "clamp", None):
        return False
    wide_a, wide_b = (c.astype(np.float64) if floats else c for c in (a, b))
    merged = np.asarray(wide_a + wide_b if isinstance(node.op, Add) else wide_a * wide_b, a.dtype)
    if floats and not np.isfinite(merged).all():
        return rewriter.note(node, "the merged constant is not finite")
    value = rewriter.constant(merged, instead=outer, of=producer.inputs[1:])
    return rewriter.replace(node, rewriter.insert(node.op, producer.inputs[0], value))


@pattern(Neg)
def double_negation(node: Node, rewriter: Rewriter) -> bool:
    """``-(-x)`` -> x."""
    producer = node.inputs[0].producer
    return producer is not None and isinstance(producer.op, Neg) and rewriter.replace(node, producer.inputs[0])


@pattern(Sub, Add)
def negated_operand(node: Node, rewriter: Rewriter) -> bool:
    """``a - (-b)`` -> ``a + b``, and ``a + (-b)`` -> ``a - b``."""
    a, b = node.inputs
    if b.producer is None or not isinstance(b.op, Neg) or getattr(node.op, "clamp", None):
        return False
    op = Add() if isinstance(node.op, Sub) else Sub()
    return rewriter.replace(node, rewriter.insert(op, a, b.producer.inputs[0]))


@pattern(Pow)
def power(node: Node, rewriter: Rewriter) -> bool:
    """Powers with a simple exponent -> products, roots, reciprocals."""
    x, exponent = node.inputs
    if not x.type.dtype.is_float or x.type != node.output.type:
        return False
    made: Value
    match scalar_of(exponent):
        case 2.0:
            made = rewriter.insert(Mul(), x, x)
        case 3.0:
            made = rewriter.insert(Mul(), rewriter.insert(Mul(), x, x), x)
        case 0.5:
            made = rewriter.insert(Sqrt(), x)
        case -0.5:
            made = rewriter.insert(Reciprocal(), rewriter.insert(Sqrt(), x))
        case -1.0:
            made = rewriter.insert(Reciprocal(), x)
        case _:
            return False
    return rewriter.replace(node, made)


@pattern(Div)
def divide_one(node: Node, rewriter: Rewriter) -> bool:
    """``1 / x`` -> the reciprocal of x."""
    one, x = node.inputs
    if scalar_of(one) != 1.0 or not x.type.dtype.is_float or x.type != node.output.type:
        return False
    return rewriter.replace(node, rewriter.insert(Reciprocal(), x))


PATTERNS = (
    neutral,
    constant_right,
    subtract_constant,
    divide_by_constant,
    merge_constants,
    double_negation,
    negated_operand,
    power,
    divide_one,
)
