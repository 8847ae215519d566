"""qavg_pool, max_pool and qreduce_mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ....ir.graph import Node
from ....ir.ops.integer import QAvgPool, QReduceMean, multiplier, quant_of
from ....ir.ops.pool import MaxPool
from ....ir.types import DType
from ...plan.builder import Constants, PlanBuilder, channels_last_order
from ...plan.moves import Border
from ...plan.views import View
from ..kernels.pool import AvgPoolSpec, MaxPoolSpec, Window
from ..kernels.reduce import ReduceMeanSpec
from .registry import lowers
from .weighted import image_axes, rounding_constants, strided_view, two_axes


def max_border(site: PlanBuilder, node: Node) -> Border | None:
    """Padding never wins: it holds the smallest value."""
    assert isinstance(node.op, MaxPool)
    return Border(node.op.padding, -128 if node.inputs[0].type.dtype is DType.I8 else float("-inf"))


def avg_border(site: PlanBuilder, node: Node) -> Border | None:
    """Padding means the real 0."""
    assert isinstance(node.op, QAvgPool)
    return Border(node.op.padding, quant_of(node.inputs[0].type).zero_point[0])


@lowers(MaxPool, border=max_border)
def lower_max_pool(site: PlanBuilder, node: Node) -> None:
    """The largest byte or float of each window."""
    op, type = node.op, node.inputs[0].type
    assert isinstance(op, MaxPool)
    quantized = type.dtype is DType.I8 and type.quant is not None
    if not (quantized or type.dtype is DType.F32) or len(op.kernel) > 2:
        site.refuse(node, f"no kernel for {len(op.kernel)}-d windows of {type.dtype.value}")
        site.allocate(node.output)
        return
    border = max_border(site, node)
    assert border is not None
    source = site.padded(node.inputs[0], border)
    out = site.allocate(node.output, channels_last_order(source.rank))
    window = window_of(out, op.kernel, op.stride, op.dilation)
    image, result = strided_view(image_axes(source)), strided_view(image_axes(out))
    spec = MaxPoolSpec(window, image, result, "act" if quantized else "float32")
    site.call(spec, node.where, {"x": source, "out": out})


@lowers(QAvgPool, border=avg_border)
def lower_avg_pool(site: PlanBuilder, node: Node) -> None:
    """The exact sum of each window times the factor of its place."""
    op, type = node.op, node.inputs[0].type
    assert isinstance(op, QAvgPool)
    border = avg_border(site, node)
    assert border is not None
    source = site.padded(node.inputs[0], border)
    out = site.allocate(node.output, channels_last_order(source.rank))
    constants: Constants = {
        "factors": op.factors(type, type.static_shape[2:]),
        "x_zero_point": site.stored(quant_of(type).zero_point[0]),
    }
    if op.out is not None:
        constants = {**constants, **rounding_constants(site, op.out)}
    image, result = strided_view(image_axes(source)), strided_view(image_axes(out))
    window = window_of(out, op.pool, op.stride, (1,) * len(op.pool))
    spec = AvgPoolSpec(window, image, result, "byte" if op.out else "f32")
    site.call(spec, node.where, {"x": source, "out": out}, constants)


def window_of(out: View, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Window:
    """Where the windows of a channels-last result lie."""
    batch, channels, height, width = image_axes(out).shape
    return Window(batch, height, width, channels, *two_axes(kernel), *two_axes(stride), *two_axes(dilation))


@lowers(QReduceMean)
def lower_reduce_mean(site: PlanBuilder, node: Node) -> None:
    """The exact sum over any axes, in place; kept axes nest as they do in the input."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, QReduceMean)
    axes = tuple(sorted(axis % x.rank for axis in op.axes))
    kept = [axis for axis in range(x.rank) if axis not in axes]
    order = tuple(axis for axis in x.order() if op.keep or axis in kept)
    out = site.allocate(node.output, order if op.keep else tuple(kept.index(axis) for axis in order))
    quant = quant_of(node.inputs[0].type)
    count = math.prod(x.shape[axis] for axis in axes)
    constants: Constants = {
        "x_zero_point": site.stored(quant.zero_point[0]),
        "multiplier": multiplier([quant], op.out, count)[0],
    }
    if op.out is not None:
        constants = {**constants, **rounding_constants(site, op.out)}
    strides = _kept_strides(out, axes) if op.keep else out.strides
    spec = ReduceMeanSpec(x.shape, axes, x.strides, strides, "byte" if op.out else "f32")
    site.call(spec, node.where, {"x": x, "out": out}, constants)


def _kept_strides(out: View, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(stride for axis, stride in enumerate(out.strides) if axis not in axes)
