"""Fully connected layers and matrix products."""

from __future__ import annotations

import torch

from ....graph import Value
from ....ops.elementwise import Add, Mul
from ....ops.matmul import Linear, MatMul
from ....types import DType
from ..context import Context, Number, translate

aten = torch.ops.aten


@translate(aten.linear.default)
def linear(ctx: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    if weight.type.rank == 1:
        return ctx.reshape(
            linear(ctx, x, ctx.reshape(weight, (1, *weight.type.shape)), _row(ctx, bias)), x.type.shape[:-1]
        )
    return ctx.emit(Linear(), x, weight, *([bias] if bias is not None else []))


def _row(ctx: Context, bias: Value | None) -> Value | None:
    return bias if bias is None or bias.type.rank else ctx.reshape(bias, (1,))


@translate(aten.bmm.default, aten.mm.default)
def matrix_product(ctx: Context, a: Value, b: Value) -> Value:
    return ctx.emit(MatMul(), a, b)


@translate(aten.matmul.default)
def matmul(ctx: Context, a: Value, b: Value) -> Value:
    """torch.matmul: vectors become a row on the left and a column on the right."""
    left, right = a, b
    if a.type.rank == 1:
        left = ctx.reshape(a, (1, *a.type.shape))
    if b.type.rank == 1:
        right = ctx.reshape(b, (*b.type.shape, 1))
    return ctx.reshape(ctx.emit(MatMul(), left, right), ctx.shape)


@translate(aten.mv.default, aten.dot.default, aten.vdot.default)
def vector_product(ctx: Context, a: Value, b: Value) -> Value:
    return matmul(ctx, a, b)


@translate(aten.bilinear.default)
def bilinear(ctx: Context, a: Value, b: Value, weight: Value, bias: Value | None = None) -> Value:
    """``y[o] = sum over i, j of a[i] * weight[o, i, j] * b[j]``: a linear layer of ``a``, then a product with ``b``."""
    outputs, left, right = weight.type.static_shape
    lead = a.type.shape[:-1]
    rows = ctx.reshape(ctx.transpose(weight, (0, 2, 1)), (outputs * right, left))
    mixed = ctx.reshape(ctx.emit(Linear(), a, rows), (*lead, outputs, right))
    column = ctx.reshape(b, (*lead, right, 1))
    y = ctx.reshape(ctx.emit(MatMul(), mixed, column), (*lead, outputs))
    return y if bias is None else ctx.emit(Add(), y, bias)


@translate(aten.addmm.default)
def addmm(ctx: Context, bias: Value, a: Value, b: Value, *, beta: Number = 1, alpha: Number = 1) -> Value:
    """``beta * bias + alpha * (a @ b)``; with a constant ``b`` and a plain bias it is a linear layer."""
    weight = ctx.known(b)
    fits = beta == 1 and alpha == 1 and bias.type.shape == (b.type.shape[1],)
    if weight is not None and fits:
        return ctx.emit(Linear(), a, ctx.transpose(b, (1, 0)), bias)
    return _sum(ctx, bias, ctx.emit(MatMul(), a, b), beta, alpha)


@translate(aten.baddbmm.default)
def baddbmm(ctx: Context, bias: Value, a: Value, b: Value, *, beta: Number = 1, alpha: Number = 1) -> Value:
    return _sum(ctx, bias, ctx.emit(MatMul(), a, b), beta, alpha)


def _sum(ctx: Context, bias: Value, product: Value, beta: Number, alpha: Number) -> Value:
    dtype: DType = product.type.dtype
    scaled = product if alpha == 1 else ctx.emit(Mul(), product, ctx.scalar(alpha, dtype))
    if beta == 0:
        return scaled
    return ctx.emit(Add(), bias if beta == 1 else ctx.emit(Mul(), bias, ctx.scalar(beta, dtype)), scaled)
