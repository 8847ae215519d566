"""Pooling: windows, and adaptive pools where they are windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ....graph import Value
from ....ops.conv import Padding
from ....ops.elementwise import Mul
from ....ops.logic import Mod
from ....ops.pool import AvgPool, MaxPool, MaxPoolIndices
from ....ops.reduce import ReduceMax, ReduceMean
from ....ops.shape import Concat
from ..context import Context, Refusal, spread, translate

aten = torch.ops.aten
Sizes = int | Sequence[int]


@translate(aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
def max_pool(
    ctx: Context,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Value:
    rank = _spatial_rank(ctx)
    window = spread(kernel, rank)
    steps, dilations = _stride(stride, window), spread(dilation, rank)
    padded, _ = _padding(ctx, x, window, steps, spread(padding, rank), dilations, ceil_mode)
    return _batched(ctx, MaxPool(window, steps, padded, dilations), x)


@translate(
    aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default, aten.max_pool1d_with_indices.default
)
def max_pool_with_indices(
    ctx: Context,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> tuple[Value, ...]:
    """Places count within each plane, as torch counts them; they are made only where somebody reads them."""
    pooled = max_pool(ctx, x, kernel, stride, padding, dilation, ceil_mode)
    if all(user.args[1] == 0 for user in ctx.node.users):
        return (pooled,)
    op = next(node.op for node in reversed(list(ctx.graph.nodes)) if isinstance(node.op, MaxPool))
    single = x.type.rank == len(op.kernel) + 1
    planes = ctx.reshape(x, (1, *x.type.shape)) if single else x
    size = math.prod(ctx.static(planes)[2:])
    places = ctx.emit(MaxPoolIndices(op.kernel, op.stride, op.padding, op.dilation), planes)
    within = ctx.emit(Mod(), places, ctx.scalar(size, places.type.dtype))
    return pooled, ctx.reshape(within, pooled.type.shape)


@translate(aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(
    ctx: Context,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    rank = _spatial_rank(ctx)
    window = spread(kernel, rank)
    steps, ones = _stride(stride, window), (1,) * rank
    padded, overhang = _padding(ctx, x, window, steps, spread(padding, rank), ones, ceil_mode)
    if divisor_override is None:
        return _batched(ctx, AvgPool(window, steps, padded, ones, count_include_pad, overhang), x)
    if ceil_mode and any(overhang):
        raise Refusal("divisor_override with ceil_mode")
    mean = _batched(ctx, AvgPool(window, steps, padded, ones, True), x)
    factor = float(np.prod(window)) / divisor_override
    return ctx.emit(Mul(), mean, ctx.scalar(factor, mean.type.dtype))


def _spatial_rank(ctx: Context) -> int:
    """1, 2 or 3, from the name of the ATen op."""
    return next(int(c) for c in str(ctx.node.target) if c.isdigit())


def _stride(stride: Sizes, window: tuple[int, ...]) -> tuple[int, ...]:
    return spread(stride, len(window)) if isinstance(stride, int) or stride else window


def _padding(
    ctx: Context,
    x: Value,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> tuple[Padding, tuple[int, ...]]:
    """Padding whose floor-mode result has torch's size, and how much of it only rounds the size up."""
    if not ceil_mode:
        return tuple((p, p) for p in padding), ()
    spatial = x.type.shape[x.type.rank - len(window) :]
    wanted = ctx.shape[len(ctx.shape) - len(window) :]
    extra: list[int] = []
    for size, out, k, s, p, d in zip(spatial, wanted, window, stride, padding, dilation, strict=True):
        if not isinstance(size, int) or not isinstance(out, int):
            raise Refusal("ceil_mode over a size that is not fixed")
        extra.append(max((out - 1) * s + d * (k - 1) + 1 - size - 2 * p, 0))
    padded = tuple((p, p + e) for p, e in zip(padding, extra, strict=True))
    return padded, tuple(extra) if any(extra) else ()


def _batched(ctx: Context, op: MaxPool | AvgPool, x: Value) -> Value:
    """One image may come without a batch axis."""
    single = x.type.rank == len(op.kernel) + 1
    if single:
        x = ctx.reshape(x, (1, *x.type.shape))
    y = ctx.emit(op, x)
    return ctx.reshape(y, y.type.shape[1:]) if single else y


# Adaptive ----------------------------------------------------------------------------------------------------------


@translate(
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
)
def adaptive_avg_pool(ctx: Context, x: Value, size: Sizes) -> Value:
    return _adaptive(ctx, x, largest=False)


@translate(aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def adaptive_max_pool(ctx: Context, x: Value, size: Sizes) -> tuple[Value, ...]:
    if any(user.args[1] != 0 for user in ctx.node.users):
        raise Refusal("the indices of the largest elements are used")
    return (_adaptive(ctx, x, largest=True),)


def _adaptive(ctx: Context, x: Value, *, largest: bool) -> Value:
    rank = _spatial_rank(ctx)
    lead = x.type.rank - rank
    targets = [extent for extent in ctx.shape[lead:] if isinstance(extent, int)]
    if targets == [1] * rank:
        axes = tuple(range(lead, x.type.rank))
        return ctx.emit(ReduceMax(axes, True) if largest else ReduceMean(axes, True), x)
    sizes = [extent for extent in x.type.shape[lead:] if isinstance(extent, int)]
    if len(sizes) != rank or len(targets) != rank:
        raise Refusal("adaptive pooling of a size that is not fixed")
    if all(size % target == 0 for size, target in zip(sizes, targets, strict=True)):
        window = tuple(size // target for size, target in zip(sizes, targets, strict=True))
        none = tuple((0, 0) for _ in window)
        ones = (1,) * rank
        op = MaxPool(window, window, none, ones) if largest else AvgPool(window, window, none, ones)
        return _batched(ctx, op, x)
    for axis, (size, target) in enumerate(zip(sizes, targets, strict=True), lead):
        x = _uneven(ctx, x, axis, size, target, largest)
    return x


def _uneven(ctx: Context, x: Value, axis: int, size: int, target: int, largest: bool) -> Value:
    """Windows of different sizes along one axis: window i covers floor(i*n/t) to ceil((i+1)*n/t)."""
    if size == target:
        return x
    parts: list[Value] = []
    for i in range(target):
        part = ctx.slice(x, axis, i * size // target, -(-(i + 1) * size // target))
        parts.append(ctx.emit((ReduceMax if largest else ReduceMean)((axis,), True), part))
    return ctx.emit(Concat(axis), *parts)
