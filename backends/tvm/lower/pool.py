"""qreduce_mean, qavg_pool and max_pool."""

from __future__ import annotations

import math

import numpy as np

from ....ir.graph import Node
from ....ir.ops.integer import QReduceMean, multiplier, quant_of
from ...plan.builder import PlanBuilder
from ...plan.views import View
from ..kernels.reduce import ReduceMeanSpec
from .registry import lowers
from .weighted import rounding_constants


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
    constants = {
        "x_zero_point": np.int32(site.stored(quant.zero_point[0])),
        "multiplier": multiplier([quant], op.out, count)[0],
    }
    if op.out is not None:
        constants |= rounding_constants(site, op.out)
    strides = _kept_strides(out, axes) if op.keep else out.strides
    spec = ReduceMeanSpec(x.shape, axes, x.strides, strides, "byte" if op.out else "f32")
    site.call(spec, node.where, {"x": x, "out": out}, constants)


def _kept_strides(out: View, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(stride for axis, stride in enumerate(out.strides) if axis not in axes)
