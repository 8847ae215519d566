"""Functions of one element."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ....graph import Value
from ....op import Op
from ....ops import elementwise as ops
from ....ops import logic
from ....ops import math as functions
from ....ops.reduce import ReduceSum
from ..context import Context, Number, Refusal, translate

aten = torch.ops.aten
INFINITY = float("inf")

SIMPLE: dict[object, Callable[[], Op]] = {
    aten.abs.default: ops.Abs,
    aten.acos.default: functions.Acos,
    aten.acosh.default: functions.Acosh,
    aten.asin.default: functions.Asin,
    aten.asinh.default: functions.Asinh,
    aten.atan.default: functions.Atan,
    aten.atanh.default: functions.Atanh,
    aten.ceil.default: functions.Ceil,
    aten.cos.default: functions.Cos,
    aten.cosh.default: functions.Cosh,
    aten.erf.default: ops.Erf,
    aten.exp.default: ops.Exp,
    aten.floor.default: functions.Floor,
    aten.hardsigmoid.default: ops.HardSigmoid,
    aten.hardswish.default: ops.HardSwish,
    aten.log.default: ops.Log,
    aten.mish.default: functions.Mish,
    aten.neg.default: ops.Neg,
    aten.reciprocal.default: functions.Reciprocal,
    aten.relu.default: ops.Relu,
    aten.relu6.default: lambda: ops.Clamp(0.0, 6.0),
    aten.round.default: functions.Round,
    aten.sigmoid.default: ops.Sigmoid,
    aten.sign.default: functions.Sign,
    aten.sgn.default: functions.Sign,
    aten.silu.default: ops.Silu,
    aten.sin.default: functions.Sin,
    aten.sinh.default: functions.Sinh,
    aten.sqrt.default: ops.Sqrt,
    aten.tan.default: functions.Tan,
    aten.tanh.default: ops.Tanh,
}


def _simple(target: object, make: Callable[[], Op]) -> None:
    @translate(target)
    def unary(ctx: Context, x: Value) -> Value:
        return ctx.emit(make(), ctx.cast(x, ctx.dtype))


for _target, _make in SIMPLE.items():
    _simple(_target, _make)


# Compositions ------------------------------------------------------------------------------------------------------


@translate(aten.rsqrt.default)
def rsqrt(ctx: Context, x: Value) -> Value:
    return ctx.emit(functions.Reciprocal(), ctx.emit(ops.Sqrt(), ctx.cast(x, ctx.dtype)))


@translate(aten.square.default)
def square(ctx: Context, x: Value) -> Value:
    return ctx.emit(ops.Mul(), x, x)


@translate(aten.exp2.default)
def exp2(ctx: Context, x: Value) -> Value:
    return ctx.emit(ops.Exp(), _times(ctx, ctx.cast(x, ctx.dtype), math.log(2.0)))


@translate(aten.expm1.default)
def expm1(ctx: Context, x: Value) -> Value:
    """The elu of slope one is exp(x) - 1 below zero, where the difference would cancel."""
    x = ctx.cast(x, ctx.dtype)
    below = ctx.emit(ops.Elu(), ctx.emit(ops.Clamp(-INFINITY, 0.0), x))
    above = ctx.emit(ops.Exp(), ctx.emit(ops.Clamp(0.0, INFINITY), x))
    return ctx.emit(ops.Add(), below, _plus(ctx, above, -1.0))


@translate(aten.log2.default)
def log2(ctx: Context, x: Value) -> Value:
    return _times(ctx, ctx.emit(ops.Log(), ctx.cast(x, ctx.dtype)), 1.0 / math.log(2.0))


@translate(aten.log10.default)
def log10(ctx: Context, x: Value) -> Value:
    return _times(ctx, ctx.emit(ops.Log(), ctx.cast(x, ctx.dtype)), 1.0 / math.log(10.0))


@translate(aten.log1p.default)
def log1p(ctx: Context, x: Value) -> Value:
    return ctx.emit(ops.Log(), _plus(ctx, ctx.cast(x, ctx.dtype), 1.0))


@translate(aten.erfc.default)
def erfc(ctx: Context, x: Value) -> Value:
    return _plus(ctx, ctx.emit(ops.Neg(), ctx.emit(ops.Erf(), x)), 1.0)


@translate(aten.trunc.default, aten.fix.default)
def trunc(ctx: Context, x: Value) -> Value:
    if not x.type.dtype.is_float:
        return x
    whole = ctx.emit(functions.Floor(), ctx.emit(ops.Abs(), x))
    return ctx.emit(ops.Mul(), ctx.emit(functions.Sign(), x), whole)


@translate(aten.frac.default)
def frac(ctx: Context, x: Value) -> Value:
    return ctx.emit(ops.Sub(), x, trunc(ctx, x))


def _times(ctx: Context, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else ctx.emit(ops.Mul(), x, ctx.scalar(factor, x.type.dtype))


def _plus(ctx: Context, x: Value, term: float) -> Value:
    return ctx.emit(ops.Add(), x, ctx.scalar(term, x.type.dtype))


# Activations with parameters -----------------------------------------------------------------------------------------


@translate(aten.gelu.default)
def gelu(ctx: Context, x: Value, *, approximate: str = "none") -> Value:
    return ctx.emit(ops.Gelu(approximate == "tanh"), x)


@translate(aten.leaky_relu.default)
def leaky_relu(ctx: Context, x: Value, slope: float = 0.01) -> Value:
    return ctx.emit(ops.LeakyRelu(float(slope)), x)


@translate(aten.rrelu_with_noise.default, aten.rrelu_with_noise_functional.default)
def rrelu(
    ctx: Context,
    x: Value,
    noise: Value,
    lower: float = 1.0 / 8.0,
    upper: float = 1.0 / 3.0,
    training: bool = False,
    generator: None = None,
) -> Value | tuple[Value, Value]:
    if training:
        raise Refusal("random slopes: export the module after model.eval()")
    y = leaky_relu(ctx, x, (lower + upper) / 2)
    return (y, noise) if "functional" in str(ctx.node.target) else y


@translate(aten.elu.default)
def elu(ctx: Context, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """``scale * (x if x > 0 else alpha * (exp(x * input_scale) - 1))``; selu and celu are written with it."""
    alpha, scale, input_scale = float(alpha), float(scale), float(input_scale)
    if input_scale == 1.0:
        if scale == 1.0:
            return ctx.emit(ops.Elu(alpha), x)
        return ctx.emit(functions.Selu(alpha, scale), x)
    if math.isclose(alpha * input_scale, 1.0):
        return _times(ctx, ctx.emit(functions.Celu(alpha), x), scale)
    raise Refusal("an elu with an input scale of its own")


@translate(aten.selu.default)
def selu(ctx: Context, x: Value) -> Value:
    return ctx.emit(functions.Selu(), x)


@translate(aten.celu.default)
def celu(ctx: Context, x: Value, alpha: float = 1.0) -> Value:
    return ctx.emit(functions.Celu(float(alpha)), x)


@translate(aten.softplus.default)
def softplus(ctx: Context, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """Above the threshold torch is linear, which is the same number in float32 (from 20 on)."""
    beta = float(beta)
    smooth = _times(ctx, ctx.emit(functions.Softplus(), _times(ctx, x, beta)), 1.0 / beta)
    if threshold >= 15.0:
        return smooth
    above = ctx.emit(logic.Greater(), x, ctx.scalar(threshold / beta, x.type.dtype))
    return ctx.where(above, x, smooth)


@translate(aten.log_sigmoid.default)
def log_sigmoid(ctx: Context, x: Value) -> Value:
    """log(1 / (1 + exp(-x))) = -softplus(-x)."""
    return ctx.emit(ops.Neg(), ctx.emit(functions.Softplus(), ctx.emit(ops.Neg(), x)))


@translate(aten.log_sigmoid_forward.default)
def log_sigmoid_forward(ctx: Context, x: Value) -> tuple[Value, ...]:
    return (log_sigmoid(ctx, x),)


@translate(aten.hardshrink.default)
def hardshrink(ctx: Context, x: Value, bound: float = 0.5) -> Value:
    return ctx.emit(functions.Shrink(float(bound)), x)


@translate(aten.softshrink.default)
def softshrink(ctx: Context, x: Value, bound: float = 0.5) -> Value:
    return ctx.emit(functions.Shrink(float(bound), float(bound)), x)


@translate(aten.threshold.default)
def threshold(ctx: Context, x: Value, bound: Number, value: Number) -> Value:
    if value == 0 and x.type.dtype.is_float:
        return ctx.emit(functions.ThresholdedRelu(float(bound)), x)
    above = ctx.emit(logic.Greater(), x, ctx.scalar(bound, x.type.dtype))
    return ctx.where(above, x, ctx.scalar(value, x.type.dtype))


@translate(aten.hardtanh.default)
def hardtanh(ctx: Context, x: Value, low: Number = -1, high: Number = 1) -> Value:
    return ctx.emit(ops.Clamp(float(low), float(high)), x)


@translate(aten.glu.default)
def glu(ctx: Context, x: Value, axis: int = -1) -> Value:
    axis %= x.type.rank
    size = x.type.shape[axis]
    if not isinstance(size, int):
        raise Refusal("a dimension that is not fixed")
    gate = ctx.emit(ops.Sigmoid(), ctx.slice(x, axis, size // 2, size))
    return ctx.emit(ops.Mul(), ctx.slice(x, axis, 0, size // 2), gate)


@translate(aten.prelu.default, aten._prelu_kernel.default)
def prelu(ctx: Context, x: Value, slope: Value) -> Value:
    if slope.type.rank <= 1 and slope.type.shape not in ((), (1,)) and x.type.rank > 1:
        slope = ctx.reshape(slope, (*slope.type.shape, *[1] * (x.type.rank - 2)))
    return ctx.emit(logic.PRelu(), x, slope)


@translate(aten.isnan.default)
def isnan(ctx: Context, x: Value) -> Value:
    return ctx.emit(functions.IsNan(), x)


@translate(aten.isinf.default)
def isinf(ctx: Context, x: Value) -> Value:
    return ctx.emit(functions.IsInf(), x)


@translate(aten.linalg_vector_norm.default)
def vector_norm(
    ctx: Context, x: Value, order: Number = 2, axes: object = None, keepdim: bool = False, *, dtype: object = None
) -> Value:
    from .reduce import amax, amin, axes_of, total

    x = ctx.cast(x, ctx.dtype)
    size = ctx.emit(ops.Abs(), x)
    if order == 2:
        reduced = axes_of(x, axes)  # type: ignore[arg-type]
        return ctx.emit(ops.Sqrt(), ctx.emit(ReduceSum(reduced, keepdim), ctx.emit(ops.Mul(), x, x)))
    if order == 1:
        return total(ctx, size, axes, keepdim)  # type: ignore[arg-type]
    if order in (INFINITY, -INFINITY):
        return (amax if order > 0 else amin)(ctx, size, axes, keepdim)  # type: ignore[arg-type]
    if order == 0:
        raise Refusal("the norm of order 0")
    powered = ctx.emit(logic.Pow(), size, ctx.scalar(order, x.type.dtype))
    return ctx.emit(logic.Pow(), total(ctx, powered, axes, keepdim), ctx.scalar(1 / order, x.type.dtype))  # type: ignore[arg-type]
