"""Running sums and products, reductions of integers, and the elements that come first."""

from __future__ import annotations

from typing import Literal

from ....ir.graph import Node
from ....ir.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum, Reduction
from ....ir.ops.scan import CumProd, CumSum, TopK
from ...plan.builder import PlanBuilder
from ...plan.views import View
from ..kernels.scan import ScanOp, ScanSpec
from ..kernels.topk import TopKSpec
from .logic import NUMBERS, pointwise, scalar
from .registry import lowers

REDUCTIONS: dict[type[Reduction], ScanOp] = {
    ReduceSum: "sum",
    ReduceMean: "sum",
    ReduceProd: "prod",
    ReduceMax: "max",
    ReduceMin: "min",
}


def _has_kernel(site: PlanBuilder, node: Node) -> bool:
    """Whether elements are of a type that has kernels; refuses the node otherwise."""
    dtype = site.view(node.inputs[0]).dtype
    if dtype not in NUMBERS:
        site.refuse(node, f"no kernel for elements of {dtype}")
    return dtype in NUMBERS


@lowers(CumSum, CumProd)
def lower_cumulative(site: PlanBuilder, node: Node) -> None:
    """One line at a time."""
    op = node.op
    assert isinstance(op, CumSum | CumProd)
    if not _has_kernel(site, node):
        return
    x = site.view(node.inputs[0])
    out = site.allocate(node.output, x.order())
    name: ScanOp = "sum" if isinstance(op, CumSum) else "prod"
    flags = (True, op.exclusive, op.reverse)
    spec = ScanSpec(name, x.dtype, x.shape, op.axis % x.rank, *flags, x.strides, out.strides)
    site.call(spec, node.where, {"x": x, "out": out})


@lowers(ReduceProd)
def lower_scanned_reduction(site: PlanBuilder, node: Node) -> None:
    """One axis after the other, the last one first; means of integers truncate."""
    op = node.op
    assert isinstance(op, Reduction)
    if not _has_kernel(site, node):
        return
    view = site.view(node.inputs[0])
    axes = sorted((axis % view.rank for axis in op.axes), reverse=True)
    for axis in axes:
        view = _without(site, node, view, axis, REDUCTIONS[type(op)])
    if isinstance(op, ReduceMean) and view.dtype != "bool" and axes:
        count = node.inputs[0].type.size // max(node.output.type.size, 1)
        mean = site.scratch_view(view.shape, view.dtype)
        pointwise(site, node.where, "div", [view, scalar(site, count, view.dtype)], mean)
        view = mean
    for axis in reversed(axes) if op.keep else ():
        view = view.inserted(axis)
    out = site.allocate(node.output, view.order())
    site.copy(view, out, node.where)


def _without(site: PlanBuilder, node: Node, x: View, axis: int, op: ScanOp) -> View:
    """The tensor reduced along an axis, without it."""
    out = site.scratch_view((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype)
    spec = ScanSpec(op, x.dtype, x.shape, axis, running=False, x_strides=x.strides, out_strides=out.strides)
    site.call(spec, node.where, {"x": x, "out": out})
    return out


@lowers(TopK)
def lower_topk(site: PlanBuilder, node: Node) -> None:
    """Every line sorted, and cut off."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, TopK)
    if x.dtype not in ("float32", "int32", "int64"):
        site.refuse(node, f"no kernel for elements of {x.dtype}")
        return
    dtype: Literal["float32", "int32", "int64"] = x.dtype  # type: ignore[assignment]
    values, indices = (site.allocate(value) for value in node.outputs)
    strides = (x.strides, values.strides, indices.strides)
    spec = TopKSpec(dtype, x.shape, op.axis % x.rank, op.count, not op.largest, *strides)
    site.call(spec, node.where, {"x": x, "values": values, "indices": indices})
