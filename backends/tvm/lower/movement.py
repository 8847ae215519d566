"""Ops that only move elements: most are new views of bytes that lie somewhere already; the rest are copies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ....ir.graph import Node
from ....ir.ops.cast import Identity
from ....ir.ops.shape import Concat, Expand, Gather, Pad, Reshape, Slice, Transpose
from ...plan.builder import PlanBuilder
from ...plan.views import ITEM_BYTES, View
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
    """Fill everything with the pad value, then copy the inside; in other modes copy outwards from there."""
    op, source = node.op, site.view(node.inputs[0])
    assert isinstance(op, Pad)
    out = site.allocate(node.output, source.order())
    before = [max(pair[0], 0) for pair in op.padding]
    crop = [max(-pair[0], 0) for pair in op.padding]
    sizes = [n + min(a, 0) + min(b, 0) for n, (a, b) in zip(source.shape, op.padding, strict=True)]
    if op.mode != "constant" and sizes != list(source.shape):
        site.refuse(node, f"no kernel for {op.mode} padding that crops other axes")
        return
    if op.mode == "constant":
        _fill(site, node, out, op.value)
    site.copy(source.sliced(crop, sizes), out.sliced(before, sizes), node.where)
    if op.mode != "constant":
        _pad_outwards(site, node, out, before, sizes)


def _fill(site: PlanBuilder, node: Node, out: View, value: float) -> None:
    number = np.full(1, int(value) if out.dtype == "act" else value)
    constant = site.constant(number.astype(node.output.type.dtype.numpy), node.output.type).reshaped((1,) * out.rank)
    assert constant is not None
    site.copy(replace(constant, dtype=out.dtype).expanded(out.shape), out, node.where)


def _pad_outwards(site: PlanBuilder, node: Node, out: View, starts: list[int], sizes: list[int]) -> None:
    """Fill the padding axis by axis, each from what is there already: ``sizes`` elements from ``starts`` on."""
    assert isinstance(node.op, Pad)
    for axis, (before, after) in enumerate(node.op.padding):
        size, extent = sizes[axis], out.shape[axis]
        sources = [before + source for source in node.op.sources(size, before, after).tolist()]
        for first, last in ((0, before), (before + size, extent)):
            for start, count, step in _runs(sources, first, last):
                origin, target, extents, steps = list(starts), list(starts), list(sizes), [1] * out.rank
                origin[axis], target[axis], extents[axis], steps[axis] = sources[start], start, count, step
                site.copy(out.sliced(origin, extents, steps), out.sliced(target, extents), node.where)
        starts[axis], sizes[axis] = 0, extent


def _runs(sources: Sequence[int], first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """(start, count, step) of the stretches of ``sources[first:last]`` that one copy can read."""
    while first < last:
        step = sources[first + 1] - sources[first] if first + 1 < last else 1
        count = 1
        while first + count < last and sources[first + count] - sources[first + count - 1] == step:
            count += 1
        yield first, count, step
        first += count
