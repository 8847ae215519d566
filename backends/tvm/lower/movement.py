"""Ops that only move elements: most are new views of bytes that lie somewhere already; the rest are copies."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from ....ir.graph import Node
from ....ir.ops.cast import Identity
from ....ir.ops.shape import Concat, Expand, Gather, Pad, Reshape, Slice, Transpose
from ...plan.builder import PlanBuilder
from ...plan.views import ITEM_BYTES
from ..kernels.gather import GatherSpec
from .registry import lowers


@lowers(Identity, view=True)
def lower_identity(site: PlanBuilder, node: Node) -> None:
    """The same view."""
    site.bind(node.output, site.view(node.inputs[0]))


@lowers(Reshape, view=True)
def lower_reshape(site: PlanBuilder, node: Node) -> None:
    """A view where strides allow it; else the elements are first brought into row-major order."""
    view, shape = site.view(node.inputs[0]), node.output.type.static_shape
    reshaped = view.reshaped(shape) or site.contiguous(view).reshaped(shape)
    assert reshaped is not None
    site.bind(node.output, reshaped)


@lowers(Transpose, view=True)
def lower_transpose(site: PlanBuilder, node: Node) -> None:
    """Strides in another order."""
    assert isinstance(node.op, Transpose)
    site.bind(node.output, site.view(node.inputs[0]).permuted(node.op.permutation))


@lowers(Slice, view=True)
def lower_slice(site: PlanBuilder, node: Node) -> None:
    """An offset and longer strides; a reversed axis is brought into order by a copy."""
    assert isinstance(node.op, Slice)
    view = site.view(node.inputs[0]).sliced(node.op.starts, node.output.type.static_shape, node.op.steps)
    if any(step < 0 for step in node.op.steps):
        out = site.allocate(node.output)
        site.copy(view, out, node.where)
        return
    site.bind(node.output, view)


@lowers(Expand, view=True)
def lower_expand(site: PlanBuilder, node: Node) -> None:
    """Stride 0."""
    site.bind(node.output, site.view(node.inputs[0]).expanded(node.output.type.static_shape))


@lowers(Concat)
def lower_concat(site: PlanBuilder, node: Node) -> None:
    """Parts that their kernels did not write in place are copied."""
    assert isinstance(node.op, Concat)
    first = site.view(node.inputs[0])
    out = site.view(node.output) if site.has_view(node.output) else site.allocate(node.output, first.order())
    axis, start = node.op.axis % out.rank, 0
    for part in node.inputs:
        if not site.is_placed(part, node, start):
            starts = [0] * out.rank
            starts[axis] = start
            site.copy(site.view(part), out.sliced(starts, part.type.static_shape), node.where)
        start += part.type.static_shape[axis]


@lowers(Gather)
def lower_gather(site: PlanBuilder, node: Node) -> None:
    """Rows along one axis by indices in int32 or int64, constant or not."""
    op = node.op
    assert isinstance(op, Gather)
    x, indices = site.contiguous(site.view(node.inputs[0])), site.contiguous(site.view(node.inputs[1]))
    out = site.allocate(node.output)
    target = out if out.is_dense() else site.scratch_view(out.shape, out.dtype)
    if indices.dtype not in ("int32", "int64"):
        site.refuse(node, f"no kernel for indices of {indices.dtype}")
        return
    axis = op.axis % x.rank
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    index: Literal["int32", "int64"] = "int32" if indices.dtype == "int32" else "int64"
    spec = GatherSpec(ITEM_BYTES[x.dtype], outer, x.shape[axis], indices.size, inner, index)
    site.call(spec, node.where, {"x": x, "indices": indices, "out": target})
    if target is not out:
        site.copy(target, out, node.where)


@lowers(Pad)
def lower_pad(site: PlanBuilder, node: Node) -> None:
    """Fill everything with the pad value, then copy the inside."""
    op, source = node.op, site.view(node.inputs[0])
    assert isinstance(op, Pad)
    out = site.allocate(node.output, source.order())
    fill = np.full(1, int(op.value) if source.dtype == "act" else op.value)
    constant = site.constant(fill.astype(node.output.type.dtype.numpy), node.output.type).reshaped((1,) * out.rank)
    assert constant is not None
    site.copy(replace(constant, dtype=out.dtype).expanded(out.shape), out, node.where)
    before = [max(pair[0], 0) for pair in op.padding]
    crop = [max(-pair[0], 0) for pair in op.padding]
    sizes = [n + min(a, 0) + min(b, 0) for n, (a, b) in zip(source.shape, op.padding, strict=True)]
    site.copy(source.sliced(crop, sizes), out.sliced(before, sizes), node.where)
