"""Images read at computed coordinates, and places of maxima."""

from __future__ import annotations

from typing import Literal

from ....ir.graph import Node
from ....ir.ops.pool import MaxPoolIndices
from ....ir.ops.sampling import GridSample
from ...plan.builder import PlanBuilder
from ..kernels.grid import GridSpec
from ..kernels.pool_indices import PoolIndicesSpec
from .registry import lowers

IMAGE_RANK = 4


@lowers(MaxPoolIndices)
def lower_max_pool_indices(site: PlanBuilder, node: Node) -> None:
    """One window at a time."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, MaxPoolIndices)
    if x.dtype != "float32":
        site.refuse(node, f"no kernel for elements of {x.dtype}")
        return
    out = site.allocate(node.output)
    before = tuple(pair[0] for pair in op.padding)
    window = (op.kernel, op.stride, before, op.dilation)
    spec = PoolIndicesSpec(x.shape, out.shape[2:], *window, op.column_major, x.strides, out.strides)
    site.call(spec, node.where, {"x": x, "out": out})


@lowers(GridSample)
def lower_grid_sample(site: PlanBuilder, node: Node) -> None:
    """One element at a time, of images."""
    op = node.op
    assert isinstance(op, GridSample)
    x, grid = (site.view(value) for value in node.inputs)
    if (x.dtype, grid.dtype) != ("float32", "float32"):
        site.refuse(node, f"no kernel for elements of {x.dtype} at coordinates of {grid.dtype}")
        return
    if x.rank != IMAGE_RANK or op.mode not in ("linear", "nearest"):
        site.refuse(node, "only linear and nearest samples of images have kernels")
        return
    out = site.allocate(node.output)
    mode: Literal["linear", "nearest"] = "linear" if op.mode == "linear" else "nearest"
    paddings: dict[str, Literal["zeros", "border", "reflection"]] = {"border": "border", "reflection": "reflection"}
    batch, channels, height, width = x.shape
    spec = GridSpec(
        (batch, channels, height, width),
        (out.shape[2], out.shape[3]),
        mode,
        paddings.get(op.padding, "zeros"),
        op.align_corners,
        x.strides,
        grid.strides,
        out.strides,
    )
    site.call(spec, node.where, {"x": x, "grid": grid, "out": out})
