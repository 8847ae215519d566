"""Reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ....graph import Value
from ....op import Op
from ....ops.elementwise import Mul, Sqrt, Sub
from ....ops.reduce import ArgMax, ArgMin, ReduceLogSumExp, ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum
from ....ops.scan import CumProd, CumSum, TopK
from ....types import Dim, DType, normalize_axis
from ..context import Context, Refusal, translate

aten = torch.ops.aten
Axes = int | Sequence[int] | None


def axes_of(x: Value, axes: Axes) -> tuple[int, ...]:
    """Axes counted from the front, ascending; none given means all."""
    if axes is None or axes in ([], ()):
        return tuple(range(x.type.rank))
    items = [axes] if isinstance(axes, int) else list(axes)
    return tuple(sorted({normalize_axis(axis, x.type.rank) for axis in items})) if x.type.rank else ()


def _reduce(ctx: Context, kind: type[Op], x: Value, axes: Axes, keep: bool) -> Value:
    reduced = axes_of(x, axes)
    return ctx.emit(kind(reduced, keep), x) if reduced else x  # type: ignore[call-arg]


@translate(aten.mean.default, aten.mean.dim)
def mean(
    ctx: Context, x: Value, axes: Axes = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Value:
    return _reduce(ctx, ReduceMean, ctx.cast(x, ctx.dtype), axes, keepdim)


@translate(aten.sum.default, aten.sum.dim_IntList)
def total(
    ctx: Context, x: Value, axes: Axes = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Value:
    return _reduce(ctx, ReduceSum, ctx.cast(x, ctx.dtype), axes, keepdim)


@translate(aten.prod.default, aten.prod.dim_int)
def product(
    ctx: Context, x: Value, axis: Axes = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Value:
    return _reduce(ctx, ReduceProd, ctx.cast(x, ctx.dtype), axis, keepdim)


@translate(aten.amax.default, aten.max.default)
def amax(ctx: Context, x: Value, axes: Axes = None, keepdim: bool = False) -> Value:
    return _reduce(ctx, ReduceMax, x, axes, keepdim)


@translate(aten.amin.default, aten.min.default)
def amin(ctx: Context, x: Value, axes: Axes = None, keepdim: bool = False) -> Value:
    return _reduce(ctx, ReduceMin, x, axes, keepdim)


@translate(aten.max.dim)
def max_along(ctx: Context, x: Value, axis: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _reduce(ctx, ReduceMax, x, axis, keepdim), argmax(ctx, x, axis, keepdim)


@translate(aten.min.dim)
def min_along(ctx: Context, x: Value, axis: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _reduce(ctx, ReduceMin, x, axis, keepdim), argmin(ctx, x, axis, keepdim)


@translate(aten.var.correction, aten.var.dim)
def variance(ctx: Context, x: Value, axes: Axes = None, *args: Any, **kwargs: Any) -> Value:
    return _moments(ctx, x, axes, *args, **kwargs)[0]


@translate(aten.std.correction, aten.std.dim)
def deviation(ctx: Context, x: Value, axes: Axes = None, *args: Any, **kwargs: Any) -> Value:
    return ctx.emit(Sqrt(), _moments(ctx, x, axes, *args, **kwargs)[0])


@translate(aten.var_mean.correction, aten.var_mean.dim)
def variance_and_mean(ctx: Context, x: Value, axes: Axes = None, *args: Any, **kwargs: Any) -> tuple[Value, Value]:
    return _moments(ctx, x, axes, *args, **kwargs)


def _moments(
    ctx: Context,
    x: Value,
    axes: Axes,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Value, Value]:
    """Variance with Bessel's correction, and mean."""
    reduced = axes_of(x, axes)
    if correction is None:
        correction = 1.0 if unbiased else 0.0
    sizes = [x.type.shape[axis] for axis in reduced]
    count = math.prod(size for size in sizes if isinstance(size, int))
    if any(isinstance(size, Dim) for size in sizes) or count <= correction:
        raise Refusal("over a number of elements that is not fixed, or too small")
    mean = ctx.emit(ReduceMean(reduced, True), x)
    centred = ctx.emit(Sub(), x, mean)
    spread = ctx.emit(ReduceMean(reduced, keepdim), ctx.emit(Mul(), centred, centred))
    if correction:
        spread = ctx.emit(Mul(), spread, ctx.scalar(count / (count - correction), x.type.dtype))
    return spread, mean if keepdim else ctx.reshape(mean, spread.type.shape)


@translate(aten.argmax.default)
def argmax(ctx: Context, x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    return _arg(ctx, ArgMax, x, axis, keepdim)


@translate(aten.argmin.default)
def argmin(ctx: Context, x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    return _arg(ctx, ArgMin, x, axis, keepdim)


def _arg(ctx: Context, kind: type[ArgMax | ArgMin], x: Value, axis: int | None, keepdim: bool) -> Value:
    if axis is None:
        flat = ctx.emit(kind(0, False), ctx.reshape(x, (x.type.size,)))
        return ctx.reshape(flat, (1,) * x.type.rank if keepdim else ())
    if not x.type.rank:
        return ctx.emit(kind(0, False), ctx.reshape(x, (1,)))
    return ctx.emit(kind(normalize_axis(axis, x.type.rank), keepdim), x)


@translate(aten.any.default, aten.any.dim, aten.any.dims)
def any_true(ctx: Context, x: Value, axes: Axes = None, keepdim: bool = False) -> Value:
    bits = ctx.cast(ctx.cast(x, DType.BOOL), DType.I32)
    return ctx.cast(_reduce(ctx, ReduceMax, bits, axes, keepdim), DType.BOOL)


@translate(aten.all.default, aten.all.dim, aten.all.dims)
def all_true(ctx: Context, x: Value, axes: Axes = None, keepdim: bool = False) -> Value:
    bits = ctx.cast(ctx.cast(x, DType.BOOL), DType.I32)
    return ctx.cast(_reduce(ctx, ReduceMin, bits, axes, keepdim), DType.BOOL)


@translate(aten.cumsum.default)
def cumsum(ctx: Context, x: Value, axis: int, *, dtype: torch.dtype | None = None) -> Value:
    return _cumulative(ctx, CumSum, x, axis)


@translate(aten.cumprod.default)
def cumprod(ctx: Context, x: Value, axis: int, *, dtype: torch.dtype | None = None) -> Value:
    return _cumulative(ctx, CumProd, x, axis)


def _cumulative(ctx: Context, kind: type[CumSum | CumProd], x: Value, axis: int) -> Value:
    x = ctx.cast(x, ctx.dtype)
    return ctx.emit(kind(normalize_axis(axis, x.type.rank)), x) if x.type.rank else x


@translate(aten.topk.default)
def topk(
    ctx: Context, x: Value, count: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Value, ...]:
    return ctx.emit_all(TopK(count, normalize_axis(axis, x.type.rank), largest), x)


@translate(aten.sort.default)
def sort(ctx: Context, x: Value, axis: int = -1, descending: bool = False) -> tuple[Value, ...]:
    axis = normalize_axis(axis, x.type.rank)
    size = x.type.shape[axis]
    if not isinstance(size, int):
        raise Refusal("a dimension that is not fixed")
    return ctx.emit_all(TopK(size, axis, descending), x)


@translate(aten.sort.stable)
def stable_sort(
    ctx: Context, x: Value, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Value, ...]:
    return sort(ctx, x, dim, descending)


@translate(aten.argsort.default)
def argsort(ctx: Context, x: Value, axis: int = -1, descending: bool = False) -> Value:
    return sort(ctx, x, axis, descending)[1]


@translate(aten.logsumexp.default)
def logsumexp(ctx: Context, x: Value, axes: Axes, keepdim: bool = False) -> Value:
    return _reduce(ctx, ReduceLogSumExp, ctx.cast(x, ctx.dtype), axes, keepdim)
