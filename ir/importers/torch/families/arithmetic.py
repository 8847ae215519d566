"""Arithmetic, comparison and logic of several operands, with torch's type promotion."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ....graph import Value
from ....op import Op
from ....ops import elementwise as ops
from ....ops import logic
from ....ops import math as functions
from ....types import DType
from ..context import Context, Number, Operand, Refusal, promote, translate

aten = torch.ops.aten

# Arithmetic --------------------------------------------------------------------------------------------------------


@translate(aten.add.Tensor, aten.add.Scalar)
def add(ctx: Context, a: Operand, b: Operand, alpha: Number = 1) -> Value:
    return _scaled(ctx, ops.Add(), a, b, alpha)


@translate(aten.sub.Tensor, aten.sub.Scalar)
def sub(ctx: Context, a: Operand, b: Operand, alpha: Number = 1) -> Value:
    return _scaled(ctx, ops.Sub(), a, b, alpha)


@translate(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(ctx: Context, a: Operand, b: Operand, alpha: Number = 1) -> Value:
    return _scaled(ctx, ops.Sub(), b, a, alpha)


def _scaled(ctx: Context, op: Op, a: Operand, b: Operand, alpha: Number) -> Value:
    x, y = ctx.promoted(a, b)
    return ctx.emit(op, x, y if alpha == 1 else ctx.emit(ops.Mul(), y, ctx.scalar(alpha, y.type.dtype)))


@translate(aten.mul.Tensor, aten.mul.Scalar)
def mul(ctx: Context, a: Operand, b: Operand) -> Value:
    return ctx.emit(logic.And() if ctx.dtype is DType.BOOL else ops.Mul(), *ctx.promoted(a, b))


@translate(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor)
def div(ctx: Context, a: Operand, b: Operand) -> Value:
    """True division; of integers it is computed in float."""
    return ctx.emit(ops.Div(), ctx.operand(a, ctx.dtype), ctx.operand(b, ctx.dtype))


@translate(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_rounded(ctx: Context, a: Operand, b: Operand, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode is None:
        return div(ctx, a, b)
    x, y = ctx.promoted(a, b)
    if rounding_mode == "floor":
        return _floor_quotient(ctx, x, y)
    quotient = ctx.emit(ops.Div(), x, y)
    if not x.type.dtype.is_float:
        return quotient
    whole = ctx.emit(functions.Floor(), ctx.emit(ops.Abs(), quotient))
    return ctx.emit(ops.Mul(), ctx.emit(functions.Sign(), quotient), whole)


@translate(aten.floor_divide.default, aten.floor_divide.Scalar)
def floor_divide(ctx: Context, a: Operand, b: Operand) -> Value:
    return _floor_quotient(ctx, *ctx.promoted(a, b))


def _floor_quotient(ctx: Context, x: Value, y: Value) -> Value:
    """What is left after the remainder divides evenly: exact for integers, and close for floats."""
    if x.type.dtype.is_float:
        return ctx.emit(functions.Floor(), ctx.emit(ops.Div(), x, y))
    return ctx.emit(ops.Div(), ctx.emit(ops.Sub(), x, ctx.emit(logic.Mod(), x, y)), y)


@translate(aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor)
def remainder(ctx: Context, a: Operand, b: Operand) -> Value:
    return ctx.emit(logic.Mod(), *ctx.promoted(a, b))


@translate(aten.fmod.Tensor, aten.fmod.Scalar)
def fmod(ctx: Context, a: Operand, b: Operand) -> Value:
    return ctx.emit(logic.Mod(True), *ctx.promoted(a, b))


@translate(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar)
def power(ctx: Context, a: Operand, b: Operand) -> Value:
    x = ctx.operand(a, ctx.dtype)
    if b == 2:
        return ctx.emit(ops.Mul(), x, x)
    if b == 3:
        return ctx.emit(ops.Mul(), ctx.emit(ops.Mul(), x, x), x)
    if b == 0.5:
        return ctx.emit(ops.Sqrt(), x)
    if b == -1:
        return ctx.emit(functions.Reciprocal(), x)
    if b == -0.5:
        return ctx.emit(functions.Reciprocal(), ctx.emit(ops.Sqrt(), x))
    if b == 1:
        return x
    return ctx.emit(logic.Pow(), x, ctx.operand(b, ctx.dtype))


@translate(aten.addcmul.default)
def addcmul(ctx: Context, x: Value, a: Value, b: Value, *, value: Number = 1) -> Value:
    return _scaled(ctx, ops.Add(), x, ctx.emit(ops.Mul(), *ctx.promoted(a, b)), value)


@translate(aten.addcdiv.default)
def addcdiv(ctx: Context, x: Value, a: Value, b: Value, *, value: Number = 1) -> Value:
    return _scaled(ctx, ops.Add(), x, ctx.emit(ops.Div(), *ctx.promoted(a, b)), value)


@translate(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(ctx: Context, a: Value, b: Value, weight: Operand) -> Value:
    step = ctx.emit(ops.Mul(), ctx.emit(ops.Sub(), b, a), ctx.operand(weight, a.type.dtype))
    return ctx.emit(ops.Add(), a, step)


@translate(aten.hypot.default)
def hypot(ctx: Context, a: Value, b: Value) -> Value:
    squares = [ctx.emit(ops.Mul(), x, x) for x in ctx.promoted(a, b)]
    return ctx.emit(ops.Sqrt(), ctx.emit(ops.Add(), *squares))


# Extremes ----------------------------------------------------------------------------------------------------------


@translate(aten.maximum.default)
def maximum(ctx: Context, a: Operand, b: Operand) -> Value:
    return ctx.emit(logic.Maximum(), *ctx.promoted(a, b))


@translate(aten.minimum.default)
def minimum(ctx: Context, a: Operand, b: Operand) -> Value:
    return ctx.emit(logic.Minimum(), *ctx.promoted(a, b))


@translate(aten.clamp.default, aten.clamp.Tensor, aten.clamp_min.default, aten.clamp_min.Tensor, aten.clip.default)
def clamp(ctx: Context, x: Value, min: Operand | None = None, max: Operand | None = None) -> Value:
    x = ctx.cast(x, ctx.dtype)
    if not isinstance(min, Value) and not isinstance(max, Value):
        low = float("-inf") if min is None else float(min)
        return ctx.emit(ops.Clamp(low, float("inf") if max is None else float(max)), x)
    if min is not None:
        x = ctx.emit(logic.Maximum(), x, ctx.operand(min, x.type.dtype))
    return x if max is None else ctx.emit(logic.Minimum(), x, ctx.operand(max, x.type.dtype))


@translate(aten.clamp_max.default, aten.clamp_max.Tensor)
def clamp_max(ctx: Context, x: Value, max: Operand) -> Value:
    return clamp(ctx, x, None, max)


# Comparison and logic ------------------------------------------------------------------------------------------------

COMPARISONS: dict[str, Callable[[], Op]] = {
    "eq": logic.Equal,
    "gt": logic.Greater,
    "ge": logic.GreaterEqual,
    "lt": logic.Less,
    "le": logic.LessEqual,
}


def _comparison(name: str, make: Callable[[], Op]) -> None:
    packet = getattr(aten, name)

    @translate(packet.Tensor, packet.Scalar)
    def compare(ctx: Context, a: Operand, b: Operand) -> Value:
        return ctx.emit(make(), *_comparable(ctx, a, b))


def _comparable(ctx: Context, a: Operand, b: Operand) -> list[Value]:
    """Booleans are compared as numbers."""
    dtype = promote((a, b))
    dtype = DType.I32 if dtype is DType.BOOL else dtype
    return [ctx.operand(a, dtype), ctx.operand(b, dtype)]


for _name, _make in COMPARISONS.items():
    _comparison(_name, _make)


@translate(aten.ne.Tensor, aten.ne.Scalar)
def not_equal(ctx: Context, a: Operand, b: Operand) -> Value:
    return ctx.emit(logic.Not(), ctx.emit(logic.Equal(), *_comparable(ctx, a, b)))


def _logical(name: str, make: Callable[[], Op]) -> None:
    @translate(getattr(aten, f"logical_{name}").default)
    def logical(ctx: Context, a: Value, b: Value) -> Value:
        return ctx.emit(make(), ctx.cast(a, DType.BOOL), ctx.cast(b, DType.BOOL))

    packet = getattr(aten, f"bitwise_{name}")

    @translate(packet.Tensor, packet.Scalar)
    def bitwise(ctx: Context, a: Operand, b: Operand) -> Value:
        return ctx.emit(make(), *ctx.promoted(a, b))


_logical("and", logic.And)
_logical("or", logic.Or)
_logical("xor", logic.Xor)


@translate(aten.__and__.Tensor)
def both(ctx: Context, a: Operand, b: Operand) -> Value:
    return ctx.emit(logic.And(), *ctx.promoted(a, b))


@translate(aten.__or__.Tensor)
def either(ctx: Context, a: Operand, b: Operand) -> Value:
    return ctx.emit(logic.Or(), *ctx.promoted(a, b))


@translate(aten.logical_not.default)
def logical_not(ctx: Context, x: Value) -> Value:
    return ctx.emit(logic.Not(), ctx.cast(x, DType.BOOL))


@translate(aten.bitwise_not.default)
def bitwise_not(ctx: Context, x: Value) -> Value:
    return ctx.emit(logic.Not(), x)


# Selection ---------------------------------------------------------------------------------------------------------


@translate(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(ctx: Context, condition: Value, a: Operand, b: Operand) -> Value:
    x, y = (ctx.operand(part, ctx.dtype) for part in (a, b))
    return ctx.where(ctx.cast(condition, DType.BOOL), x, y)


@translate(aten.where.default)
def where_alone(ctx: Context, condition: Value) -> Value:
    raise Refusal("the number of results depends on the data")


@translate(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(ctx: Context, x: Value, mask: Value, value: Operand) -> Value:
    return ctx.where(ctx.cast(mask, DType.BOOL), ctx.operand(value, x.type.dtype), x)
