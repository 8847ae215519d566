"""Elements at computed places: gathers and scatters of all kinds, one-hot vectors, triangles.

An index outside its axis is taken as the nearest inside, as in ``gather``: nothing is read or written out of bounds.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ....ir.graph import Node
from ....ir.ops.index import GatherElements, GatherND, OneHot, ReverseSequence, ScatterElements, ScatterND, Trilu
from ....ir.ops.pool import MaxUnpool
from ...plan.builder import PlanBuilder
from ...plan.views import ITEM_BYTES, View
from ..kernels.places import PlaceOp, PlacesSpec
from .logic import NUMBERS, computed, constant, pointwise, scalar
from .registry import lowers

MOVED = {1: "uint8", 4: "int32", 8: "int64"}
"""What elements travel as that are only moved, by their size."""


def _has_kernel(site: PlanBuilder, node: Node, indices: View) -> bool:
    """Whether elements and indices are of types that have kernels; refuses the node otherwise."""
    dtypes = (site.view(node.inputs[0]).dtype, indices.dtype)
    if dtypes[0] in ITEM_BYTES and dtypes[1] in ("int32", "int64"):
        return True
    site.refuse(node, f"no kernel for elements of {dtypes[0]} at indices of {dtypes[1]}")
    return False


def _move(
    site: PlanBuilder, node: Node, op: PlaceOp, views: tuple[View, View, View], limits: View, axes: tuple[int, int]
) -> None:
    """Move between ``whole`` and ``part``, views of one shape, by ``indices``, another one.

    Axes [first, last) of ``limits`` are those that indices replace; the components of an index are ``indices``' last
    axis, which the other views lack.
    """
    whole, indices, part = views
    first, last = axes
    dtype = MOVED[ITEM_BYTES[part.dtype]] if op in ("read", "write") else part.dtype
    index: Literal["int32", "int64"] = "int32" if indices.dtype == "int32" else "int64"
    spec = PlacesSpec(
        op,
        dtype,
        part.shape,
        whole.strides,
        limits.shape[first:last],
        limits.strides[first:last],
        indices.strides[:-1],
        indices.strides[-1],
        index,
        part.strides,
    )
    site.call(spec, node.where, {"whole": whole, "indices": indices, "part": part})


def _one_component(indices: View) -> View:
    """With an axis for the components of an index, of which there is one."""
    return indices.inserted(indices.rank)


def _along(site: PlanBuilder, node: Node, op: PlaceOp, whole: View, indices: View, part: View, axis: int) -> None:
    """Elements whose place differs from their own along one axis alone."""
    seen = whole.sliced((0,) * whole.rank, [1 if a == axis else n for a, n in enumerate(part.shape)])
    views = (seen.expanded(part.shape), _one_component(indices), part)
    _move(site, node, op, views, whole, (axis, axis + 1))


@lowers(GatherElements)
def lower_gather_elements(site: PlanBuilder, node: Node) -> None:
    """One element for each index."""
    assert isinstance(node.op, GatherElements)
    x, indices = (site.view(value) for value in node.inputs)
    if _has_kernel(site, node, indices):
        _along(site, node, "read", x, indices, site.allocate(node.output), node.op.axis % x.rank)


@lowers(GatherND)
def lower_gather_nd(site: PlanBuilder, node: Node) -> None:
    """Slices of what the indices leave."""
    op = node.op
    assert isinstance(op, GatherND)
    x, indices = (site.view(value) for value in node.inputs)
    if not _has_kernel(site, node, indices):
        return
    depth, batch = indices.shape[-1], op.batch_dims
    _slices(site, node, "read", x, indices, site.allocate(node.output), (batch, batch + depth))


def _slices(
    site: PlanBuilder, node: Node, op: PlaceOp, whole: View, indices: View, part: View, axes: tuple[int, int]
) -> None:
    """Slices along the axes behind ``axes``, at tuples of indices for those; axes before them go along."""
    first, last = axes
    middle, behind = indices.rank - 1 - first, whole.rank - last
    seen = whole.sliced((0,) * whole.rank, [1 if first <= a < last else n for a, n in enumerate(whole.shape)])
    shape = (*whole.shape[:first], *(1,) * middle, *whole.shape[last:])
    strides = (*seen.strides[:first], *(0,) * middle, *seen.strides[last:])
    still = View(whole.storage, whole.dtype, shape, strides, whole.offset).expanded(part.shape)
    shape = (*indices.shape[:-1], *(1,) * behind, indices.shape[-1])
    strides = (*indices.strides[:-1], *(0,) * behind, indices.strides[-1])
    tuples = View(indices.storage, indices.dtype, shape, strides, indices.offset)
    _move(site, node, op, (still, tuples.expanded((*part.shape, shape[-1])), part), whole, axes)


OPERATIONS: dict[str, PlaceOp] = {"none": "write", "add": "add", "mul": "mul", "max": "max", "min": "min"}


@lowers(ScatterElements, ScatterND)
def lower_scatter(site: PlanBuilder, node: Node) -> None:
    """A copy, into which the updates go one after the other: of several to one place the last one stays."""
    op = node.op
    assert isinstance(op, ScatterElements | ScatterND)
    x, indices, updates = (site.view(value) for value in node.inputs)
    if not _has_kernel(site, node, indices):
        return
    out = site.allocate(node.output, x.order())
    site.copy(x, out, node.where)
    reduction = OPERATIONS[op.reduction]
    if isinstance(op, ScatterElements):
        _along(site, node, reduction, out, indices, updates, op.axis % x.rank)
    else:
        _slices(site, node, reduction, out, indices, updates, (0, indices.shape[-1]))


@lowers(ReverseSequence)
def lower_reverse_sequence(site: PlanBuilder, node: Node) -> None:
    """The source of every step, computed from the lengths; then one element at a time."""
    op = node.op
    assert isinstance(op, ReverseSequence)
    x, lengths = (site.view(value) for value in node.inputs)
    if not _has_kernel(site, node, lengths):
        return
    shape = [1, 1]
    shape[op.time_axis] = x.shape[op.time_axis]
    steps = np.arange(x.shape[op.time_axis]).reshape(shape)
    numbers, next_numbers = (constant(site, values.astype(lengths.dtype)) for values in (steps, steps + 1))
    lengths = lengths.inserted(op.time_axis)
    inside = computed(site, node.where, "less", numbers, lengths)
    mirrored = computed(site, node.where, "sub", lengths, next_numbers)
    sources = computed(site, node.where, "where", inside, mirrored, numbers)
    for _ in range(x.rank - 2):
        sources = sources.inserted(sources.rank)
    out = site.allocate(node.output)
    _along(site, node, "read", x, sources.expanded(x.shape), out, op.time_axis)


@lowers(OneHot)
def lower_one_hot(site: PlanBuilder, node: Node) -> None:
    """Indices compared with the numbers of the new axis."""
    op, indices = node.op, site.view(node.inputs[0])
    assert isinstance(op, OneHot)
    if indices.dtype not in NUMBERS:
        site.refuse(node, f"no kernel for indices of {indices.dtype}")
        return
    axis = op.axis % (indices.rank + 1)
    numbers = np.arange(op.depth, dtype=indices.dtype).reshape(
        [-1 if a == axis else 1 for a in range(indices.rank + 1)]
    )
    views = [indices.inserted(axis), constant(site, numbers)]
    pointwise(site, node.where, "equal", views, site.allocate(node.output))


@lowers(Trilu)
def lower_trilu(site: PlanBuilder, node: Node) -> None:
    """A choice between the elements and zero."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, Trilu)
    if x.dtype not in NUMBERS:
        site.refuse(node, f"no kernel for elements of {x.dtype}")
        return
    ones = np.ones(x.shape[-2:], bool)
    mask = constant(site, np.triu(ones, op.k) if op.upper else np.tril(ones, op.k))
    out = site.allocate(node.output, x.order())
    pointwise(site, node.where, "where", [mask, x, scalar(site, 0, x.dtype)], out)


@lowers(MaxUnpool)
def lower_max_unpool(site: PlanBuilder, node: Node) -> None:
    """Zeros, into which the elements go; then zeros around them."""
    op = node.op
    assert isinstance(op, MaxUnpool)
    x, indices = (site.view(value) for value in node.inputs)
    if not _has_kernel(site, node, indices):
        return
    if x.dtype == "act":
        site.refuse(node, "no kernel for quantized elements")
        return
    zero = scalar(site, 0, x.dtype)
    flat = site.scratch_view((math.prod(op.pooled),), x.dtype)
    site.copy(zero.expanded(flat.shape), flat, node.where)
    still = flat.sliced((0,), (1,)).reshaped((1,) * x.rank)
    assert still is not None
    _move(site, node, "write", (still.expanded(x.shape), _one_component(indices), x), flat, (0, 1))
    pooled = flat.reshaped(op.pooled)
    assert pooled is not None
    if op.pooled == op.size:
        site.bind(node.output, pooled)
        return
    out = site.allocate(node.output)
    if any(want > have for want, have in zip(op.size, op.pooled, strict=True)):
        site.copy(zero.expanded(out.shape), out, node.where)
    inside = [min(want, have) for want, have in zip(op.size, op.pooled, strict=True)]
    zeros = (0,) * x.rank
    site.copy(pooled.sliced(zeros, inside), out.sliced(zeros, inside), node.where)
