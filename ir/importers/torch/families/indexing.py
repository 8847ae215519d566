"""Reading and writing at computed places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ....graph import Value
from ....ops.elementwise import Add, Mul
from ....ops.index import GatherElements, OneHot, ScatterElements, ScatterND
from ....ops.logic import Less
from ....ops.shape import Concat, Expand, Gather
from ....types import Dim, DType, broadcast_shapes, normalize_axis
from ..context import Context, Refusal, translate

aten = torch.ops.aten


@translate(aten.index_select.default)
def index_select(ctx: Context, x: Value, axis: int, index: Value) -> Value:
    return ctx.emit(Gather(normalize_axis(axis, x.type.rank)), x, index)


@translate(aten.embedding.default)
def embedding(ctx: Context, weight: Value, indices: Value, *_: Any, **__: Any) -> Value:
    return ctx.emit(Gather(0), weight, indices)


@translate(aten.one_hot.default)
def one_hot(ctx: Context, indices: Value, classes: int = -1) -> Value:
    if classes < 0:
        raise Refusal("without a fixed number of classes")
    return ctx.cast(ctx.emit(OneHot(classes), indices), ctx.dtype)


@translate(aten.gather.default)
def gather(ctx: Context, x: Value, axis: int, indices: Value, *, sparse_grad: bool = False) -> Value:
    if not x.type.rank:
        return ctx.reshape(ctx.emit(Gather(0), ctx.reshape(x, (1,)), indices), indices.type.shape)
    return ctx.emit(GatherElements(normalize_axis(axis, x.type.rank)), x, indices)


@translate(aten.unfold.default)
def unfold(ctx: Context, x: Value, axis: int, size: int, step: int) -> Value:
    """Windows along an axis: each gathered by its places, the places moved to the end."""
    axis = normalize_axis(axis, x.type.rank)
    extent = x.type.shape[axis]
    if not isinstance(extent, int):
        raise Refusal("a dimension that is not fixed")
    places = np.arange(0, extent - size + 1, step)[:, None] + np.arange(size)
    y = ctx.emit(Gather(axis), x, ctx.constant(places))
    rest = [i for i in range(y.type.rank) if i != axis + 1]
    return ctx.transpose(y, [*rest, axis + 1])


@translate(aten.diagonal.default)
def diagonal(ctx: Context, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    a, b = normalize_axis(dim1, x.type.rank), normalize_axis(dim2, x.type.rank)
    rows, columns = x.type.shape[a], x.type.shape[b]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise Refusal("a matrix whose size is not fixed")
    rest = [i for i in range(x.type.rank) if i not in (a, b)]
    moved = ctx.transpose(x, [*rest, a, b])
    flat = ctx.reshape(moved, (*moved.type.shape[:-2], rows * columns))
    row = np.arange(max(0, -offset), min(rows, columns - offset))
    return ctx.emit(Gather(len(rest)), flat, ctx.constant(row * columns + row + offset))


@translate(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(ctx: Context, x: Value, indices: Sequence[Value | None]) -> Value:
    """Advanced indexing: the indexed axes merge into one, from which the rows are gathered."""
    axes = [axis for axis, given in enumerate(indices) if given is not None]
    given = [i for i in indices if i is not None]
    if any(i.type.dtype is DType.BOOL for i in given):
        raise Refusal("by a boolean mask: the number of results depends on the data")
    if len(given) == 1:
        return ctx.emit(Gather(axes[0]), x, given[0])
    return _index_several(ctx, x, axes, given)


def _index_several(ctx: Context, x: Value, axes: list[int], given: list[Value]) -> Value:
    sizes = [x.type.shape[axis] for axis in axes]
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) != len(sizes):
        raise Refusal("of a dimension that is not fixed")
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    first = axes[0] if adjacent else 0
    rest = [axis for axis in range(x.type.rank) if axis not in axes]
    moved = ctx.transpose(x, [*rest[:first], *axes, *rest[first:]])
    shape = moved.type.shape
    merged = ctx.reshape(moved, (*shape[:first], int(np.prod(fixed)), *shape[first + len(axes) :]))
    return ctx.emit(Gather(first), merged, _flat_index(ctx, given, fixed))


def _flat_index(ctx: Context, given: list[Value], sizes: list[int]) -> Value:
    known = [array for array in map(ctx.known, given) if array is not None]
    if len(known) == len(given):
        arrays = np.broadcast_arrays(*[np.where(a < 0, a + n, a) for a, n in zip(known, sizes, strict=True)])
        return ctx.constant(np.ravel_multi_index(tuple(arrays), tuple(sizes)))
    flat: Value | None = None
    for position, size in zip(given, sizes, strict=True):
        wide = ctx.cast(position, DType.I64)
        below = ctx.emit(Less(), wide, ctx.scalar(0, DType.I64))
        wide = ctx.where(below, ctx.emit(Add(), wide, ctx.scalar(size, DType.I64)), wide)
        flat = wide if flat is None else ctx.emit(Add(), ctx.emit(Mul(), flat, ctx.scalar(size, DType.I64)), wide)
    assert flat is not None
    return flat


# Writing: functionalized assignments ---------------------------------------------------------------------------------


@translate(aten.slice_scatter.default)
def slice_scatter(
    ctx: Context,
    x: Value,
    source: Value,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    axis = normalize_axis(axis, x.type.rank)
    size = x.type.shape[axis]
    if isinstance(size, Dim):
        if not start and (end is None or not isinstance(end, int) or end == 2**63 - 1) and step == 1:
            return source
        raise Refusal(f"a part of the dimension {size}, which is not fixed")
    places = range(*slice(start, end, step).indices(size))
    return _put(ctx, x, ctx.cast(source, x.type.dtype), axis, places)


@translate(aten.select_scatter.default)
def select_scatter(ctx: Context, x: Value, source: Value, axis: int, place: int) -> Value:
    axis = normalize_axis(axis, x.type.rank)
    size = x.type.shape[axis]
    if not isinstance(size, int):
        raise Refusal("a dimension that is not fixed")
    row = ctx.reshape(source, (*x.type.shape[:axis], 1, *x.type.shape[axis + 1 :]))
    place %= size
    return _put(ctx, x, ctx.cast(row, x.type.dtype), axis, range(place, place + 1))


@translate(aten.copy.default)
def copy(ctx: Context, x: Value, source: Value, non_blocking: bool = False) -> Value:
    typed = ctx.cast(source, x.type.dtype)
    return typed if typed.type.shape == x.type.shape else ctx.emit(Expand(x.type.shape), typed)


@translate(aten.scatter.src, aten.scatter_add.default)
def scatter(ctx: Context, x: Value, axis: int, indices: Value, source: Value) -> Value:
    reduction = "add" if "scatter_add" in str(ctx.node.target) else "none"
    return _scatter(ctx, x, axis, indices, source, reduction)


@translate(aten.scatter.value)
def scatter_value(ctx: Context, x: Value, axis: int, indices: Value, value: float) -> Value:
    source = ctx.constant(np.full(ctx.static(indices), value, x.type.dtype.numpy))
    return _scatter(ctx, x, axis, indices, source, "none")


@translate(aten.scatter_reduce.two)
def scatter_reduce(
    ctx: Context, x: Value, axis: int, indices: Value, source: Value, reduce: str, *, include_self: bool = True
) -> Value:
    reductions = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}
    if reduce not in reductions or not include_self:
        raise Refusal(f"with reduce={reduce}, include_self={include_self}")
    return _scatter(ctx, x, axis, indices, source, reductions[reduce])


def _scatter(ctx: Context, x: Value, axis: int, indices: Value, source: Value, reduction: str) -> Value:
    """Only as much of ``source`` is read as ``indices`` covers."""
    for i, (size, have) in enumerate(zip(ctx.static(indices), ctx.static(source), strict=True)):
        if size != have:
            source = ctx.slice(source, i, 0, size)
    return ctx.emit(ScatterElements(normalize_axis(axis, x.type.rank), reduction), x, indices, source)


@translate(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(
    ctx: Context, x: Value, indices: Sequence[Value | None], source: Value, accumulate: bool = False
) -> Value:
    """Rows of the leading axes at computed places; a boolean mask of the whole shape selects elementwise."""
    given = [i for i in indices if i is not None]
    if len(given) == 1 and given[0].type.dtype is DType.BOOL:
        return _put_masked(ctx, x, given[0], source, accumulate)
    if len(given) != len(indices) or any(i.type.dtype is DType.BOOL for i in given):
        raise Refusal("at places of other axes than the first ones")
    shape = broadcast_shapes(*(i.type.shape for i in given))
    columns = [ctx.cast(i, DType.I64) for i in given]
    wide = [i if i.type.shape == shape else ctx.emit(Expand(shape), i) for i in columns]
    places = [ctx.reshape(i, (*shape, 1)) for i in wide]
    tuples = places[0] if len(places) == 1 else ctx.emit(Concat(len(shape)), *places)
    target = (*shape, *x.type.shape[len(given) :])
    source = ctx.cast(source, x.type.dtype)
    source = source if source.type.shape == target else ctx.emit(Expand(target), source)
    return ctx.emit(ScatterND("add" if accumulate else "none"), x, tuples, source)


def _put_masked(ctx: Context, x: Value, mask: Value, source: Value, accumulate: bool) -> Value:
    if source.type.rank or accumulate:
        raise Refusal("values at a boolean mask: their number depends on the data")
    wide = ctx.reshape(mask, (*mask.type.shape, *[1] * (x.type.rank - mask.type.rank)))
    return ctx.where(wide, ctx.cast(source, x.type.dtype), x)


def _put(ctx: Context, x: Value, source: Value, axis: int, places: range) -> Value:
    """``x`` with the rows at ``places`` (ascending) replaced by those of ``source``."""
    size = x.type.shape[axis]
    assert isinstance(size, int)
    if not len(places):
        return x
    shape = (*x.type.shape[:axis], len(places), *x.type.shape[axis + 1 :])
    if source.type.shape != shape:
        source = ctx.emit(Expand(shape), source)
    if places.step != 1:
        both = ctx.emit(Concat(axis), x, source)
        order = np.arange(size)
        order[list(places)] = size + np.arange(len(places))
        return ctx.emit(Gather(axis), both, ctx.constant(order))
    parts = [source]
    if places.start > 0:
        parts.insert(0, ctx.slice(x, axis, 0, places.start))
    if places.stop < size:
        parts.append(ctx.slice(x, axis, places.stop, size))
    return source if len(parts) == 1 else ctx.emit(Concat(axis), *parts)
