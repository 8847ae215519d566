"""Elementwise functions and arithmetic with torch's type promotion."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ....graph import Value
from ....op import Op
from ....ops import elementwise as ops
from ....types import DType
from ..context import Context, Number, Operand, Refusal, translate

aten = torch.ops.aten

# Functions of one element ------------------------------------------------------------------------------------------

SIMPLE: dict[object, Callable[[], Op]] = {
    aten.relu.default: ops.Relu,
    aten.sigmoid.default: ops.Sigmoid,
    aten.tanh.default: ops.Tanh,
    aten.silu.default: ops.Silu,
    aten.hardswish.default: ops.HardSwish,
    aten.hardsigmoid.default: ops.HardSigmoid,
    aten.relu6.default: lambda: ops.Clamp(0.0, 6.0),
    aten.exp.default: ops.Exp,
    aten.log.default: ops.Log,
    aten.sqrt.default: ops.Sqrt,
    aten.erf.default: ops.Erf,
    aten.neg.default: ops.Neg,
    aten.abs.default: ops.Abs,
}


def _simple(target: object, make: Callable[[], Op]) -> None:
    @translate(target)
    def unary(ctx: Context, x: Value) -> Value:
        return ctx.emit(make(), ctx.cast(x, ctx.dtype))


for _target, _make in SIMPLE.items():
    _simple(_target, _make)


@translate(aten.gelu.default)
def gelu(ctx: Context, x: Value, *, approximate: str = "none") -> Value:
    return ctx.emit(ops.Gelu(approximate == "tanh"), x)


@translate(aten.leaky_relu.default)
def leaky_relu(ctx: Context, x: Value, slope: float = 0.01) -> Value:
    return ctx.emit(ops.LeakyRelu(float(slope)), x)


@translate(aten.hardtanh.default, aten.clamp.default)
def clamp(ctx: Context, x: Value, low: Number | None = None, high: Number | None = None) -> Value:
    if str(ctx.node.target) == "aten.hardtanh.default":
        low, high = -1 if low is None else low, 1 if high is None else high
    bounds = (float("-inf") if low is None else float(low), float("inf") if high is None else float(high))
    return ctx.emit(ops.Clamp(*bounds), ctx.cast(x, ctx.dtype))


# Two operands ------------------------------------------------------------------------------------------------------


@translate(aten.add.Tensor, aten.add.Scalar)
def add(ctx: Context, a: Operand, b: Operand, alpha: Number = 1) -> Value:
    return _scaled(ctx, ops.Add(), a, b, alpha)


@translate(aten.sub.Tensor, aten.sub.Scalar)
def sub(ctx: Context, a: Operand, b: Operand, alpha: Number = 1) -> Value:
    return _scaled(ctx, ops.Sub(), a, b, alpha)


@translate(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(ctx: Context, a: Operand, b: Operand, alpha: Number = 1) -> Value:
    x, y = ctx.promoted(a, b)
    return _scaled(ctx, ops.Sub(), y, x, alpha)


def _scaled(ctx: Context, op: Op, a: Operand, b: Operand, alpha: Number) -> Value:
    x, y = ctx.promoted(a, b)
    return ctx.emit(op, x, y if alpha == 1 else ctx.emit(ops.Mul(), y, ctx.scalar(alpha, y.type.dtype)))


@translate(aten.mul.Tensor, aten.mul.Scalar)
def mul(ctx: Context, a: Operand, b: Operand) -> Value:
    if ctx.dtype is DType.BOOL:
        raise Refusal("of booleans")
    return ctx.emit(ops.Mul(), *ctx.promoted(a, b))


@translate(aten.div.Tensor, aten.div.Scalar)
def div(ctx: Context, a: Operand, b: Operand) -> Value:
    """True division; of integers it is computed in float."""
    x, y = ctx.operand(a, ctx.dtype), ctx.operand(b, ctx.dtype)
    return ctx.emit(ops.Div(), x, y)
