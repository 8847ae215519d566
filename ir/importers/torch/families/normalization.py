"""Normalizations: batch, layer, group, softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ....errors import ModelError
from ....graph import Value
from ....ops.elementwise import Add, Mul
from ....ops.norm import BatchNorm, LayerNorm, LogSoftmax, Softmax
from ....types import DType
from ..context import Context, Refusal, translate

aten = torch.ops.aten
EVAL = "export the module after model.eval()"


@translate(aten._native_batch_norm_legit_no_training.default)
def batch_norm(
    ctx: Context,
    x: Value,
    scale: Value | None,
    bias: Value | None,
    mean: Value,
    variance: Value,
    momentum: float,
    epsilon: float,
) -> tuple[Value, ...]:
    channels = x.type.shape[1]
    assert isinstance(channels, int)
    for statistic in (mean, variance):
        _check_statistic(ctx, statistic)
    dtype = mean.type.dtype.numpy
    scale = scale if scale is not None else ctx.constant(np.ones(channels, dtype))
    bias = bias if bias is not None else ctx.constant(np.zeros(channels, dtype))
    if x.type.rank == 1:
        raise Refusal("needs a batch axis")
    return (ctx.emit(BatchNorm(epsilon), x, scale, bias, mean, variance),)


def _check_statistic(ctx: Context, value: Value) -> None:
    numbers = None if ctx.allow_non_finite else ctx.known(value)
    if numbers is not None and not np.isfinite(numbers).all():
        raise ModelError(f"{value.name} holds values that are not finite", where=value.name)


@translate(aten._native_batch_norm_legit_functional.default, aten._native_batch_norm_legit.default)
def training_batch_norm(ctx: Context, *_: object, **__: object) -> Value:
    raise ModelError("a batch norm was exported in training mode", where=ctx.origin, hint=EVAL)


@translate(aten._native_batch_norm_legit.no_stats)
def own_batch_norm(
    ctx: Context, x: Value, scale: Value | None, bias: Value | None, training: bool, momentum: float, epsilon: float
) -> tuple[Value, ...]:
    """By the statistics of the data itself, as for standardized weights: a layer norm of each channel."""
    order = [1, 0, *range(2, x.type.rank)]
    shape = ctx.static(x)
    channels, *rest = (shape[axis] for axis in order)
    flat = ctx.reshape(ctx.transpose(x, order), (channels, math.prod(rest)))
    y = ctx.transpose(ctx.reshape(ctx.emit(LayerNorm(1, epsilon), flat), (channels, *rest)), order)
    return (_affine(ctx, y, channels, scale, bias),)


def _affine(ctx: Context, x: Value, channels: int, scale: Value | None, bias: Value | None) -> Value:
    """Scale and bias of each channel, on axis 1."""
    wide = (channels, *[1] * (x.type.rank - 2))
    if scale is not None:
        x = ctx.emit(Mul(), x, ctx.reshape(scale, wide))
    return x if bias is None else ctx.emit(Add(), x, ctx.reshape(bias, wide))


@translate(aten.layer_norm.default)
def layer_norm(
    ctx: Context,
    x: Value,
    shape: Sequence[int],
    scale: Value | None = None,
    bias: Value | None = None,
    epsilon: float = 1e-5,
    cudnn: bool = False,
) -> Value:
    if scale is None and bias is not None:
        scale = ctx.constant(np.ones(bias.type.static_shape, bias.type.dtype.numpy))
    affine = [part for part in (scale, bias) if part is not None]
    return ctx.emit(LayerNorm(len(shape), epsilon), x, *affine)


@translate(aten.group_norm.default)
def group_norm(
    ctx: Context,
    x: Value,
    groups: int,
    scale: Value | None = None,
    bias: Value | None = None,
    epsilon: float = 1e-5,
    cudnn: bool = True,
) -> Value:
    """A layer norm over the channels and places of each group, then an affine map for each channel."""
    batch, channels, *spatial = x.type.shape
    places = [size for size in spatial if isinstance(size, int)]
    if not isinstance(channels, int) or len(places) != len(spatial):
        raise Refusal("a size that is not fixed")
    flat = ctx.reshape(x, (batch, groups, channels // groups * math.prod(places)))
    y = ctx.reshape(ctx.emit(LayerNorm(1, epsilon), flat), x.type.shape)
    return _affine(ctx, y, channels, scale, bias)


@translate(aten.instance_norm.default)
def instance_norm(
    ctx: Context,
    x: Value,
    scale: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    use_input_stats: bool,
    momentum: float,
    epsilon: float,
    cudnn: bool,
) -> Value:
    if not use_input_stats and mean is not None and variance is not None:
        return batch_norm(ctx, x, scale, bias, mean, variance, momentum, epsilon)[0]
    channels = x.type.shape[1]
    if not isinstance(channels, int):
        raise Refusal("a number of channels that is not fixed")
    return group_norm(ctx, x, channels, scale, bias, epsilon)


@translate(aten.softmax.int, aten._softmax.default)
def softmax(ctx: Context, x: Value, axis: int, dtype: torch.dtype | bool | None = None) -> Value:
    if isinstance(dtype, torch.dtype):
        x = ctx.cast(x, DType.from_torch(dtype))
    if not x.type.rank:
        return ctx.reshape(ctx.emit(Softmax(0), ctx.reshape(x, (1,))), ())
    return ctx.emit(Softmax(axis % x.type.rank), x)


@translate(aten.log_softmax.int, aten._log_softmax.default)
def log_softmax(ctx: Context, x: Value, axis: int, dtype: torch.dtype | bool | None = None) -> Value:
    if isinstance(dtype, torch.dtype):
        x = ctx.cast(x, DType.from_torch(dtype))
    if not x.type.rank:
        raise Refusal("of a single number")
    return ctx.emit(LogSoftmax(axis % x.type.rank), x)
