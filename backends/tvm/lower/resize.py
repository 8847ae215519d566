"""resize and qresize."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ....ir.graph import Node
from ....ir.ops.integer import QResize, multiplier, quant_of
from ....ir.ops.resize import Resize
from ...plan.builder import Array, PlanBuilder, channels_last_order
from ...plan.views import ITEM_BYTES
from ..kernels.resize import BilinearSpec, FloatLinearSpec, NearestSpec
from .registry import lowers
from .weighted import image_axes, rounding_constants, strided_view

SPATIAL_RANKS = (3, 4)


@lowers(Resize)
def lower_resize(site: PlanBuilder, node: Node) -> None:
    """Nearest elements of any type, linear mixtures of floats; rows and columns by tables."""
    op = node.op
    assert isinstance(op, Resize)
    x = site.view(node.inputs[0])
    modes = ("nearest", "linear") if x.dtype == "float32" else ("nearest",)
    if op.mode not in modes or x.rank not in SPATIAL_RANKS or op.size[:2] != x.shape[:2]:
        site.refuse(node, f"no kernel for {op.mode} resampling of {x.dtype} in these axes")
        site.allocate(node.output)
        return
    source = site.channels_last(x)
    out = site.allocate(node.output, channels_last_order(x.rank))
    (rows, row_weights), (columns, column_weights) = (op.taps(axis, x.shape[axis]) for axis in _axes(x.rank))
    if x.rank == min(SPATIAL_RANKS):
        rows, row_weights = _kept(1)
    batch, channels, height, width = image_axes(out).shape
    image, result = strided_view(image_axes(source)), strided_view(image_axes(out))
    views = {"x": source, "out": out}
    if op.mode == "nearest":
        nearest = NearestSpec(batch, height, width, channels, ITEM_BYTES[x.dtype], image, result)
        site.call(nearest, node.where, views, {"rows": rows[:, 0], "columns": columns[:, 0]})
        return
    constants = {"rows": rows, "row_weights": row_weights, "columns": columns, "column_weights": column_weights}
    site.call(FloatLinearSpec(batch, height, width, channels, image, result), node.where, views, constants)


@lowers(QResize)
def lower_qresize(site: PlanBuilder, node: Node) -> None:
    """Two rows by two columns with integer weights."""
    op, type = node.op, node.inputs[0].type
    assert isinstance(op, QResize)
    source = site.channels_last(site.view(node.inputs[0]))
    out = site.allocate(node.output, channels_last_order(source.rank))
    changed = op.resampled(type.static_shape)
    rows, columns = (_taps(op, axis, source.shape[axis], axis in changed) for axis in _axes(source.rank))
    if source.rank == min(SPATIAL_RANKS):
        rows = _kept(1)
    divisor = float(1 << (op.WEIGHT_BITS * len(changed)))
    constants: dict[str, npt.ArrayLike] = {
        "rows": rows[0],
        "row_weights": rows[1],
        "columns": columns[0],
        "column_weights": columns[1],
        "multiplier": multiplier([quant_of(type)], op.out, divisor)[0],
        "x_zero_point": site.stored(quant_of(type).zero_point[0]),
    }
    if op.out is not None:
        constants |= rounding_constants(site, op.out)
    batch, channels, height, width = image_axes(out).shape
    image, result = strided_view(image_axes(source)), strided_view(image_axes(out))
    spec = BilinearSpec(batch, height, width, channels, image, result, "byte" if op.out else "f32")
    site.call(spec, node.where, {"x": source, "out": out}, constants)


def _axes(rank: int) -> tuple[int, int]:
    """Height and width; for one spatial axis the width twice."""
    return (2, 3) if rank == max(SPATIAL_RANKS) else (2, 2)


def _taps(op: QResize, axis: int, size: int, resampled: bool) -> tuple[Array, Array]:
    return op.taps(axis, size) if resampled else _kept(size)


def _kept(size: int) -> tuple[Array, Array]:
    """Indices and weights of an axis that stays as it is."""
    index = np.arange(size)
    return np.stack([index, index], 1), np.stack([np.ones_like(index), np.zeros_like(index)], 1)
