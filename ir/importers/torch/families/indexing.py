"""Reading and writing at computed places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ....graph import Value
from ....ops.elementwise import Add, Mul
from ....ops.logic import Equal, Less
from ....ops.shape import Concat, Expand, Gather
from ....types import Dim, DType, normalize_axis
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
    column = ctx.reshape(indices, (*indices.type.shape, 1))
    return ctx.cast(ctx.emit(Equal(), column, ctx.constant(np.arange(classes))), ctx.dtype)


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
    known = [ctx.known(i) for i in given]
    if all(array is not None for array in known):
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

