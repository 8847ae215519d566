"""Movement of elements: views, permutations, slices, joins, pads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ....graph import Value
from ....ops.cast import Cast
from ....ops.shape import Concat, Expand, Pad, Slice
from ....types import Dim, DType, normalize_axis
from ..context import Complex, Context, Number, Refusal, translate

aten = torch.ops.aten
MAX = 2**63 - 1


@translate(
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
def view(ctx: Context, x: Value, *_: Any) -> Value:
    """The result's shape is what torch.export foresaw."""
    return ctx.reshape(x, ctx.shape)


@translate(
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.native_dropout.default,
)
def same(ctx: Context, x: Value, *_: Any, **__: Any) -> Value:
    """Copies and memory formats mean nothing here; dropout is off in eval mode."""
    return x


@translate(aten._to_copy.default, aten.to.dtype, aten.to.device, aten.type_as.default)
def convert(ctx: Context, x: Value, *_: Any, **__: Any) -> Value | Complex:
    y = ctx.cast(x, ctx.dtype)
    return ctx.with_zeros(y) if ctx.output.is_complex() else y


@translate(aten.permute.default)
def permute(ctx: Context, x: Value, axes: Sequence[int]) -> Value:
    return ctx.transpose(x, [normalize_axis(axis, x.type.rank) for axis in axes])


@translate(aten.transpose.int)
def transpose(ctx: Context, x: Value, a: int, b: int) -> Value:
    order = list(range(x.type.rank))
    if order:
        order[a], order[b] = order[b], order[a]
    return ctx.transpose(x, order)


@translate(aten.t.default)
def matrix_transpose(ctx: Context, x: Value) -> Value:
    return ctx.transpose(x, list(reversed(range(x.type.rank))))


@translate(aten.expand.default)
def expand(ctx: Context, x: Value, *_: Any, **__: Any) -> Value:
    return x if x.type.shape == ctx.shape else ctx.emit(Expand(ctx.shape), x)


@translate(aten.repeat.default)
def repeat(ctx: Context, x: Value, counts: Sequence[int]) -> Value:
    x = ctx.reshape(x, (*[1] * (len(counts) - x.type.rank), *x.type.shape))
    for axis, count in enumerate(counts):
        if not isinstance(count, int) or count == 0:
            raise Refusal("repeats that are not fixed")
        if count > 1:
            x = ctx.emit(Concat(axis), *[x] * count)
    return x


@translate(aten.slice.Tensor)
def slice_axis(
    ctx: Context, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    axis = normalize_axis(axis, x.type.rank)
    size = x.type.shape[axis]
    if isinstance(size, Dim):
        if not start and (not isinstance(end, int) or end == MAX):
            return x
        raise Refusal(f"a part of the dimension {size}, which is not fixed")
    if not all(isinstance(bound, int | None) for bound in (start, end, step)):
        raise Refusal("bounds that are not fixed")
    return ctx.slice(x, axis, *slice(start, end, step).indices(size))


@translate(aten.select.int)
def select(ctx: Context, x: Value, axis: int, index: int) -> Value:
    axis = normalize_axis(axis, x.type.rank)
    size = x.type.shape[axis]
    if not isinstance(size, int) or not isinstance(index, int):
        raise Refusal("an index or dimension that is not fixed")
    index = index % size
    return ctx.reshape(ctx.slice(x, axis, index, index + 1), ctx.shape)


@translate(aten.narrow.default)
def narrow(ctx: Context, x: Value, axis: int, start: int, length: int) -> Value:
    return slice_axis(ctx, x, axis, start, start + length)


@translate(aten.split_with_sizes.default, aten.split.sizes)
def split_sizes(ctx: Context, x: Value, sizes: Sequence[int], axis: int = 0) -> tuple[Value, ...]:
    axis = normalize_axis(axis, x.type.rank)
    if not isinstance(x.type.shape[axis], int) or not all(isinstance(size, int) for size in sizes):
        raise Refusal("sizes that are not fixed")
    starts = np.cumsum([0, *sizes])
    return tuple(ctx.slice(x, axis, int(start), int(start) + size) for start, size in zip(starts, sizes, strict=False))


@translate(aten.split.Tensor)
def split(ctx: Context, x: Value, size: int, axis: int = 0) -> tuple[Value, ...]:
    extent = x.type.shape[axis]
    if not isinstance(extent, int):
        raise Refusal("a dimension that is not fixed")
    whole, rest = divmod(extent, size)
    return split_sizes(ctx, x, [size] * whole + ([rest] if rest else []), axis)


@translate(aten.unbind.int)
def unbind(ctx: Context, x: Value, axis: int = 0) -> tuple[Value, ...]:
    axis = normalize_axis(axis, x.type.rank)
    size = x.type.shape[axis]
    if not isinstance(size, int):
        raise Refusal("a dimension that is not fixed")
    rest = (*x.type.shape[:axis], *x.type.shape[axis + 1 :])
    return tuple(ctx.reshape(ctx.slice(x, axis, i, i + 1), rest) for i in range(size))


@translate(aten.cat.default, aten.concat.default)
def cat(ctx: Context, parts: Sequence[Value], axis: int = 0) -> Value:
    rank = len(ctx.shape)
    # torch skips empty tensors of rank 1 whatever the others' rank.
    kept = [part for part in parts if part.type.shape != (0,) or rank == 1]
    typed = [ctx.cast(part, ctx.dtype) for part in kept]
    return typed[0] if len(typed) == 1 else ctx.emit(Concat(normalize_axis(axis, rank)), *typed)


@translate(aten.stack.default)
def stack(ctx: Context, parts: Sequence[Value], axis: int = 0) -> Value:
    rank = len(ctx.shape)
    axis = normalize_axis(axis, rank)
    rows = [ctx.reshape(ctx.cast(p, ctx.dtype), (*p.type.shape[:axis], 1, *p.type.shape[axis:])) for p in parts]
    return rows[0] if len(rows) == 1 else ctx.emit(Concat(axis), *rows)


@translate(aten.flip.default)
def flip(ctx: Context, x: Value, axes: Sequence[int]) -> Value:
    sizes = x.type.shape
    flipped = {normalize_axis(axis, x.type.rank) for axis in axes}
    if not flipped:
        return x
    starts, stops, steps = [0] * len(sizes), [s if isinstance(s, int) else -1 for s in sizes], [1] * len(sizes)
    for axis in flipped:
        size = sizes[axis]
        if not isinstance(size, int):
            raise Refusal("a dimension that is not fixed")
        starts[axis], stops[axis], steps[axis] = size - 1, -1, -1
    return ctx.emit(Slice(tuple(starts), tuple(stops), tuple(steps)), x)


@translate(aten.roll.default)
def roll(ctx: Context, x: Value, shifts: int | Sequence[int], axes: int | Sequence[int] = ()) -> Value:
    amounts = [shifts] if isinstance(shifts, int) else list(shifts)
    over = [axes] if isinstance(axes, int) else list(axes)
    if not over:
        flat = _rolled(ctx, ctx.reshape(x, (x.type.size,)), amounts[0], 0)
        return ctx.reshape(flat, x.type.shape)
    for amount, axis in zip(amounts, over, strict=True):
        x = _rolled(ctx, x, amount, normalize_axis(axis, x.type.rank))
    return x


def _rolled(ctx: Context, x: Value, amount: int, axis: int) -> Value:
    size = x.type.shape[axis]
    if not isinstance(size, int):
        raise Refusal("a dimension that is not fixed")
    cut = -amount % size if size else 0
    if not cut:
        return x
    return ctx.emit(Concat(axis), ctx.slice(x, axis, cut, size), ctx.slice(x, axis, 0, cut))


# Padding -----------------------------------------------------------------------------------------------------------


@translate(aten.constant_pad_nd.default)
def constant_pad(ctx: Context, x: Value, amounts: Sequence[int], value: Number = 0) -> Value:
    return _pad(ctx, x, amounts, "constant", float(value))


@translate(aten.pad.default)
def pad(ctx: Context, x: Value, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    return _pad(ctx, x, amounts, modes[mode], value or 0.0)


@translate(aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.reflection_pad3d.default)
def reflection_pad(ctx: Context, x: Value, amounts: Sequence[int]) -> Value:
    return _pad(ctx, x, amounts, "reflect")


@translate(aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default)
def replication_pad(ctx: Context, x: Value, amounts: Sequence[int]) -> Value:
    return _pad(ctx, x, amounts, "edge")


@translate(aten._pad_circular.default)
def circular_pad(ctx: Context, x: Value, amounts: Sequence[int]) -> Value:
    return _pad(ctx, x, amounts, "wrap")


def _pad(ctx: Context, x: Value, amounts: Sequence[int], mode: str, value: float = 0.0) -> Value:
    """The amounts list (before, after) from the last axis to the first."""
    if not all(isinstance(amount, int) for amount in amounts):
        raise Refusal("amounts that are not fixed")
    given = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)]
    padding = (*[(0, 0)] * (x.type.rank - len(given)), *reversed(given))
    if not any(map(any, padding)):
        return x
    if x.type.dtype is DType.BOOL:
        return ctx.emit(Cast(DType.BOOL), ctx.emit(Pad(padding, value, mode), ctx.cast(x, DType.I8)))
    return ctx.emit(Pad(padding, value, mode), x)
