"""Pooling windows, and reductions over all of space."""

from __future__ import annotations

import numpy as np

from ...ops.conv import Padding
from ...ops.elementwise import Abs, Mul
from ...ops.logic import Pow
from ...ops.pool import AvgPool, MaxPool, MaxPoolIndices, MaxUnpool
from ...ops.reduce import ReduceMax, ReduceMean
from .attributes import window_padding
from .context import Context
from .operand import Operand
from .reduce import lp_norm
from .registry import translate


def window(c: Context) -> tuple[MaxPool, tuple[int, ...]]:
    """The window of the node, and by how much rounding the output size up lengthened its trailing padding."""
    kernel = c.ints("kernel_shape")
    ones = (1,) * len(kernel)
    stride, dilation = c.ints("strides", ones), c.ints("dilations", ones)
    spatial = c.type(0).shape[2:]
    padding = window_padding(c, spatial, kernel, stride, dilation)
    zeros = (0,) * len(kernel)
    if not c.integer("ceil_mode", 0) or c.text("auto_pad", "NOTSET") not in ("NOTSET", ""):
        return MaxPool(kernel, stride, padding, dilation), zeros
    over = tuple(
        _overhang(size, k, s, p, d)
        for size, k, s, p, d in zip(c.fixed(spatial), kernel, stride, padding, dilation, strict=True)
    )
    longer: Padding = tuple((before, after + o) for (before, after), o in zip(padding, over, strict=True))
    return MaxPool(kernel, stride, longer, dilation), over


def _overhang(size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> int:
    """Elements beyond the padded input that the last window of ceil mode needs."""
    reach = dilation * (kernel - 1) + 1
    padded = size + sum(padding)
    windows = -(-(padded - reach) // stride) + 1
    if (windows - 1) * stride >= size + padding[0]:
        windows -= 1  # a window that would start beyond the input and its leading padding is dropped
    return max((windows - 1) * stride + reach - padded, 0)


@translate("MaxPool")
def max_pool(c: Context) -> tuple[Operand, ...]:
    """The second output says where each maximum was."""
    pool, _ = window(c)
    if not c.wants(1):
        return (c.emit(pool, c.value(0)),)
    indices = MaxPoolIndices(pool.kernel, pool.stride, pool.padding, pool.dilation, bool(c.integer("storage_order", 0)))
    return c.emit(pool, c.value(0)), c.emit(indices, c.value(0))


@translate("AveragePool")
def average_pool(c: Context) -> Operand:
    """Whether padding counts is an attribute."""
    pool, over = window(c)
    counted = bool(c.integer("count_include_pad", 0))
    return c.emit(AvgPool(pool.kernel, pool.stride, pool.padding, pool.dilation, counted, over), c.value(0))


@translate("LpPool")
def lp_pool(c: Context) -> Operand:
    """(sum |x|^p)^(1/p): an average pool of powers, times the window's size."""
    pool, _ = window(c)
    p = c.integer("p", 2)
    dtype = c.type(0).dtype
    powers = c.emit(Pow(), c.emit(Abs(), c.value(0)), c.const(float(p), dtype))
    # Every window is divided by its full size, so that multiplying gives the sum.
    mean = c.emit(AvgPool(pool.kernel, pool.stride, pool.padding, pool.dilation, count_padding=True), powers)
    total = c.emit(Mul(), mean, c.const(float(np.prod(pool.kernel)), dtype))
    return c.emit(Pow(), total, c.const(1.0 / p, dtype))


@translate("MaxUnpool")
def max_unpool(c: Context) -> Operand:
    """Puts elements back to where a max pool took them."""
    kernel = c.ints("kernel_shape")
    stride = c.ints("strides", (1,) * len(kernel))
    pads = c.ints("pads", (0,) * 2 * len(kernel))
    dims = c.static_shape(0)
    natural = tuple(
        (size - 1) * s + k - pads[i] - pads[i + len(kernel)]
        for i, (size, s, k) in enumerate(zip(dims[2:], stride, kernel, strict=True))
    )
    size = c.integers(2)[-len(kernel) :] if c.has(2) else natural
    return c.emit(MaxUnpool((*dims[:2], *natural), (*dims[:2], *size)), c.value(0), c.value(1))


@translate("GlobalAveragePool")
def global_average_pool(c: Context) -> Operand:
    """The mean over all spatial axes."""
    return c.emit(ReduceMean(spatial_axes(c), keep=True), c.value(0))


@translate("GlobalMaxPool")
def global_max_pool(c: Context) -> Operand:
    """The maximum over all spatial axes."""
    return c.emit(ReduceMax(spatial_axes(c), keep=True), c.value(0))


@translate("GlobalLpPool")
def global_lp_pool(c: Context) -> Operand:
    """The norm over all spatial axes."""
    return lp_norm(c, c.value(0), spatial_axes(c), c.integer("p", 2))


def spatial_axes(c: Context) -> tuple[int, ...]:
    """All but batch and channel."""
    return tuple(range(2, c.type(0).rank))
