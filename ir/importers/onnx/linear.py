"""Matrix products and fully connected layers."""

from __future__ import annotations

import numpy as np

from ...constants import Tensor
from ...ops.einsum import Einsum
from ...ops.elementwise import Add, Mul
from ...ops.matmul import Linear, MatMul
from .context import Context
from .moves import reshape, transpose
from .operand import Operand, is_constant
from .registry import translate


@translate("MatMul")
def matmul(c: Context) -> Operand:
    """A constant matrix on the right makes a linear layer."""
    return product(c, c.value(0), c.value(1))


def product(c: Context, a: Operand, b: Operand) -> Operand:
    """numpy.matmul."""
    if a.type.rank == 1 or b.type.rank == 1:
        return _vector_product(c, a, b)
    if is_constant(b) and b.type.rank == 2 and not is_constant(a):
        return c.emit(Linear(), a, transpose(c, b, (1, 0)))
    return c.emit(MatMul(), a, b)


def _vector_product(c: Context, a: Operand, b: Operand) -> Operand:
    """A vector on the left is a row, on the right a column, and its axis goes away."""
    left, right = a.type.rank == 1, b.type.rank == 1
    a = reshape(c, a, (1, *a.type.shape)) if left else a
    b = reshape(c, b, (*b.type.shape, 1)) if right else b
    y = c.emit(MatMul(), a, b)
    shape = y.type.shape[: len(y.type.shape) - right]
    shape = (*shape[:-1],) if left and right else ((*shape[:-2], shape[-1]) if left else shape)
    return reshape(c, y, shape)


@translate("Gemm")
def gemm(c: Context) -> Operand:
    """Alpha * A B + beta * C: linear, with transposition and factors folded into constants where they can be."""
    a, b = c.value(0), c.value(1)
    if c.integer("transA", 0):
        a = transpose(c, a, (1, 0))
    weight = b if c.integer("transB", 0) else transpose(c, b, (1, 0))
    weight = scaled(c, weight, c.real("alpha", 1.0))
    beta = c.real("beta", 1.0)
    if not c.has(2) or beta == 0.0:
        return c.emit(Linear(), a, weight)
    bias = scaled(c, c.value(2), beta)
    outputs = weight.type.shape[0]
    if is_constant(bias) and bias.type.rank <= 2 and bias.type.shape in ((), (1,), (outputs,), (1, outputs), (1, 1)):
        return c.emit(Linear(), a, weight, _bias(c, bias, outputs))
    if bias.type.shape == (outputs,):
        return c.emit(Linear(), a, weight, bias)
    return c.emit(Add(), c.emit(Linear(), a, weight), bias)


def _bias(c: Context, bias: Operand, outputs: object) -> Operand:
    """A constant bias with one element per output."""
    if bias.type.shape == (outputs,):
        return bias
    if isinstance(bias, Tensor) and isinstance(outputs, int):
        return c.const(np.broadcast_to(bias.numpy().reshape(-1), (outputs,)))
    return reshape(c, bias, (-1,))


def scaled(c: Context, x: Operand, factor: float) -> Operand:
    """``x`` times a number."""
    return x if factor == 1.0 else c.emit(Mul(), x, c.const(factor, x.type.dtype))


@translate("Einsum")
def einsum(c: Context) -> Operand:
    """By its equation."""
    return c.emit(Einsum(c.text("equation").replace(" ", "")), *c.values())
