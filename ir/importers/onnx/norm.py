"""Normalizations and softmax."""

from __future__ import annotations

import math

from ...errors import ModelError
from ...ops.cast import Cast, Where
from ...ops.elementwise import Add, Div, Mul, Sqrt, Sub
from ...ops.index import OneHot
from ...ops.logic import Equal
from ...ops.norm import BatchNorm, LayerNorm, LocalResponseNorm, LogSoftmax, Softmax
from ...ops.reduce import ArgMax, ReduceMean
from ...types import DType, normalize_axis
from .context import Context
from .errors import Refusal
from .moves import reshape
from .operand import Operand
from .reduce import lp_norm
from .registry import translate
from .shape import merged


@translate("BatchNormalization")
def batch_norm(c: Context) -> Operand:
    """With the stored statistics; training mode is refused."""
    if c.integer("training_mode", 0):
        raise Refusal("batch normalization in training mode")
    if not c.integer("spatial", 1):
        raise Refusal("batch normalization with a statistic per element (spatial=0)")
    c.refuse_outputs()
    dtype = c.type(0).dtype
    parts = [p if p.type.dtype is dtype else c.emit(Cast(dtype), p) for p in c.values()[1:5]]
    return c.emit(BatchNorm(c.real("epsilon", 1e-5)), c.value(0), *parts)


@translate("LayerNormalization")
def layer_norm(c: Context) -> tuple[Operand | None, ...]:
    """Parameters of the normalized shape go into the op; others are multiplied after it."""
    x = c.value(0)
    axis = normalize_axis(c.integer("axis", -1), x.type.rank)
    normalized, epsilon = x.type.shape[axis:], c.real("epsilon", 1e-5)
    if c.wants(1) or c.wants(2):
        return c.by_definition()
    affine = [c.value(i) for i in (1, 2) if c.has(i)]
    if all(p.type.shape == normalized and p.type.dtype is x.type.dtype for p in affine):
        return (c.emit(LayerNorm(len(normalized), epsilon), x, *affine),)
    y = c.emit(LayerNorm(len(normalized), epsilon), x)
    for op, part in zip((Mul(), Add()), affine, strict=False):
        y = c.emit(op, y, part if part.type.dtype is x.type.dtype else c.emit(Cast(x.type.dtype), part))
    return (y,)


@translate("InstanceNormalization")
def instance_norm(c: Context) -> Operand:
    """Each image and channel by itself."""
    x = c.value(0)
    axes = tuple(range(2, x.type.rank))
    per_channel = (-1, *[1] * len(axes))
    y = _standardized(c, x, axes, c.real("epsilon", 1e-5))
    y = c.emit(Mul(), y, reshape(c, c.value(1), per_channel))
    return c.emit(Add(), y, reshape(c, c.value(2), per_channel))


@translate("GroupNormalization", since=21)
def group_norm(c: Context) -> Operand:
    """Each group of channels of an image by itself."""
    x = c.value(0)
    dims, groups = x.type.shape, c.integer("num_groups")
    (channels,) = c.fixed(dims[1:2])
    if channels % groups:
        raise ModelError(f"{channels} channels in {groups} groups", where=c.origin)
    work = DType.F32 if c.integer("stash_type", 1) == 1 else x.type.dtype
    wide = x if x.type.dtype is work else c.emit(Cast(work), x)
    apart = reshape(c, wide, (dims[0], groups, channels // groups * math.prod(c.fixed(dims[2:]))))
    y = reshape(c, _standardized(c, apart, (2,), c.real("epsilon", 1e-5)), dims)
    y = y if x.type.dtype is work else c.emit(Cast(x.type.dtype), y)
    per_channel = (-1, *[1] * (len(dims) - 2))
    y = c.emit(Mul(), y, reshape(c, c.value(1), per_channel))
    return c.emit(Add(), y, reshape(c, c.value(2), per_channel))


def _standardized(c: Context, x: Operand, axes: tuple[int, ...], epsilon: float) -> Operand:
    """(x - mean) / sqrt(variance + epsilon) over ``axes``."""
    if axes == tuple(range(x.type.rank - len(axes), x.type.rank)):
        return c.emit(LayerNorm(len(axes), epsilon), x)
    centered = c.emit(Sub(), x, c.emit(ReduceMean(axes, keep=True), x))
    variance = c.emit(ReduceMean(axes, keep=True), c.emit(Mul(), centered, centered))
    return c.emit(Div(), centered, c.emit(Sqrt(), c.emit(Add(), variance, c.const(epsilon, x.type.dtype))))


@translate("LpNormalization")
def lp_normalization(c: Context) -> Operand:
    """X / norm, and 0 where the norm is 0."""
    x = c.value(0)
    norm = lp_norm(c, x, (normalize_axis(c.integer("axis", -1), x.type.rank),), c.integer("p", 2))
    zero, one = (c.const(v, x.type.dtype) for v in (0.0, 1.0))
    return c.emit(Div(), x, c.emit(Where(), c.emit(Equal(), norm, zero), one, norm))


@translate("LRN")
def local_response_norm(c: Context) -> Operand:
    """Across neighbouring channels."""
    op = LocalResponseNorm(c.integer("size"), c.real("alpha", 1e-4), c.real("beta", 0.75), c.real("bias", 1.0))
    return c.emit(op, c.value(0))


_SOFT = {"Softmax": Softmax, "LogSoftmax": LogSoftmax}


@translate("Softmax", "LogSoftmax", since=13)
def softmax(c: Context) -> Operand:
    """Along one axis."""
    axis = normalize_axis(c.integer("axis", -1), c.type(0).rank)
    return c.emit(_SOFT[c.op_type](axis), c.value(0))


@translate("Softmax", "LogSoftmax")
def flat_softmax(c: Context) -> Operand:
    """Over all axes from ``axis`` on, as it was before opset 13."""
    x, axis = c.value(0), normalize_axis(c.integer("axis", 1), c.type(0).rank)
    op = _SOFT[c.op_type]
    dims = x.type.shape
    wide = [i for i in range(axis, len(dims)) if dims[i] != 1]
    if len(wide) <= 1:
        return c.emit(op(wide[0] if wide else axis), x)
    flat = reshape(c, x, (*dims[:axis], merged(c, dims[axis:])))
    return reshape(c, c.emit(op(axis), flat), dims)


@translate("Hardmax", since=13)
def hardmax(c: Context) -> Operand:
    """1 at the first maximum, else 0."""
    x = c.value(0)
    return _hardmax(c, x, normalize_axis(c.integer("axis", -1), x.type.rank))


@translate("Hardmax")
def flat_hardmax(c: Context) -> Operand:
    """Over all axes from ``axis`` on, as it was before opset 13."""
    x, axis = c.value(0), normalize_axis(c.integer("axis", 1), c.type(0).rank)
    dims = x.type.shape
    flat = reshape(c, x, (*dims[:axis], merged(c, dims[axis:])))
    return reshape(c, _hardmax(c, flat, axis), dims)


def _hardmax(c: Context, x: Operand, axis: int) -> Operand:
    (extent,) = c.fixed((x.type.shape[axis],))
    hot = c.emit(OneHot(extent, axis), c.emit(ArgMax(axis), x))
    return c.emit(Cast(x.type.dtype), hot)


@translate("MeanVarianceNormalization")
def mean_variance_normalization(c: Context) -> Operand:
    """(x - mean) / (standard deviation + 1e-9)."""
    x = c.value(0)
    axes = tuple(sorted(normalize_axis(a, x.type.rank) for a in c.ints("axes", (0, 2, 3))))
    centered = c.emit(Sub(), x, c.emit(ReduceMean(axes, keep=True), x))
    variance = c.emit(ReduceMean(axes, keep=True), c.emit(Mul(), centered, centered))
    return c.emit(Div(), centered, c.emit(Add(), c.emit(Sqrt(), variance), c.const(1e-9, x.type.dtype)))
