"""Shapes and movements: Reshape and its relatives, Transpose, Slice, Split, Concat, Pad, Expand, Tile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...errors import ModelError
from ...ops.shape import Concat, Pad, Slice
from ...types import Dim, broadcast_shapes, normalize_axis
from .builder import limit_size
from .context import Context
from .moves import expand, reshape, slice_axis, transpose
from .operand import Operand, ShapeConstant
from .registry import translate


@translate("Shape")
def shape(c: Context) -> Operand:
    """A constant; symbolic dimensions stay in it."""
    dims = c.type(0).shape
    start, end = c.integer("start", 0), c.integer("end", len(dims))
    return dims_constant(c, dims[_clip(start, len(dims)) : _clip(end, len(dims))])


def _clip(index: int, rank: int) -> int:
    return min(max(index + rank if index < 0 else index, 0), rank)


def dims_constant(c: Context, dims: Sequence[int | Dim]) -> Operand:
    """Dimensions as an i64 vector."""
    if any(isinstance(d, Dim) for d in dims):
        array = np.empty(len(dims), object)
        array[:] = dims
        return ShapeConstant(array)
    return c.const(np.asarray(dims, np.int64))


@translate("Size")
def size(c: Context) -> Operand:
    """A constant."""
    return c.const(np.asarray(math.prod(c.static_shape(0)), np.int64))


@translate("Reshape")
def reshape_node(c: Context) -> Operand:
    """0 keeps a dimension (unless ``allowzero``), -1 is worked out."""
    old, new = c.type(0).shape, c.dims(1)
    if not c.integer("allowzero", 0):
        if any(d == 0 and i >= len(old) for i, d in enumerate(new)):
            raise ModelError(f"a 0 in shape {new} keeps a dimension that the input lacks", where=c.origin)
        new = tuple(old[i] if d == 0 else d for i, d in enumerate(new))
    return reshape(c, c.value(0), new)


@translate("Flatten")
def flatten(c: Context) -> Operand:
    """Two dimensions."""
    dims, axis = c.type(0).shape, c.integer("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return reshape(c, c.value(0), (merged(c, dims[:axis]), merged(c, dims[axis:])))


def merged(c: Context, dims: Sequence[int | Dim]) -> int | Dim:
    """The number of elements in ``dims``; one symbolic dimension may stand alone among ones."""
    others = [d for d in dims if d != 1]
    if len(others) == 1:
        return others[0]
    return math.prod(c.fixed(others))


@translate("Squeeze")
def squeeze(c: Context) -> Operand:
    """Drops axes of size 1."""
    dims, axes = c.type(0).shape, c.axes(1)
    if axes is None:
        axes = tuple(i for i, d in enumerate(dims) if d == 1)
    dropped = {normalize_axis(axis, len(dims)) for axis in axes}
    if any(dims[axis] != 1 for axis in dropped):
        raise ModelError(f"cannot squeeze axes {sorted(dropped)} of {c.type(0)}", where=c.origin)
    return reshape(c, c.value(0), [d for i, d in enumerate(dims) if i not in dropped])


@translate("Unsqueeze")
def unsqueeze(c: Context) -> Operand:
    """Adds axes of size 1, numbered in the result."""
    axes = c.axes(1) or ()
    dims = list(c.type(0).shape)
    for axis in sorted(normalize_axis(axis, len(dims) + len(axes)) for axis in axes):
        dims.insert(axis, 1)
    return reshape(c, c.value(0), dims)


@translate("Transpose")
def transpose_node(c: Context) -> Operand:
    """Reverses the axes unless told."""
    rank = c.type(0).rank
    return transpose(c, c.value(0), c.ints("perm", tuple(reversed(range(rank)))))


@translate("Concat")
def concat(c: Context) -> Operand:
    """Empty vectors of rank 1 are let through, as exporters write them."""
    parts = [v for v in c.values() if v.type.shape != (0,)] or [c.value(0)]
    return (
        parts[0]
        if len(parts) == 1
        else c.emit(Concat(normalize_axis(c.integer("axis", 1), parts[0].type.rank)), *parts)
    )


@translate("Expand")
def expand_node(c: Context) -> Operand:
    """Broadcast both ways."""
    return expand(c, c.value(0), broadcast_shapes(c.type(0).shape, c.dims(1)))


@translate("Tile")
def tile(c: Context) -> Operand:
    """Copies along each axis: an axis of copies in front of it, expanded."""
    x, repeats = c.value(0), c.integers(1)
    if all(r == 1 for r in repeats):
        return x
    dims = c.static_shape(0)
    apart = [d for dim in dims for d in (1, dim)]
    copied = [d for dim, r in zip(dims, repeats, strict=True) for d in (r, dim)]
    return reshape(c, expand(c, reshape(c, x, apart), copied), [d * r for d, r in zip(dims, repeats, strict=True)])


@translate("ConstantOfShape")
def constant_of_shape(c: Context) -> Operand:
    """A constant."""
    fill = np.asarray(c.attr("value").values) if c.attr("value") is not None else np.zeros(1, np.float32)
    dims = c.dims(0)
    if any(isinstance(d, Dim) for d in dims):
        return expand(c, c.const(fill.reshape(())), dims)
    limit_size(math.prod(c.fixed(dims)), c.op_type)
    return c.const(np.full(c.fixed(dims), fill.reshape(-1)[0], fill.dtype))


# Slices ------------------------------------------------------------------------------------------------------------


def normalized_slices(
    c: Context, dims: Sequence[int | Dim]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Starts, stops and steps of a Slice node for every axis, as :class:`~octavo.ir.ops.shape.Slice` has them."""
    if c.version >= 10:
        starts, ends = c.integers(1), c.integers(2)
        axes, steps = (c.integers(i) if c.has(i) else None for i in (3, 4))
    else:
        starts, ends = c.ints("starts"), c.ints("ends")
        axes, steps = (c.ints("axes") if c.attr("axes") is not None else None), None
    whole: list[tuple[int, int, int]] = [(0, d, 1) if isinstance(d, int) else (0, -1, 1) for d in dims]
    for i, axis in enumerate(axes or range(len(starts))):
        axis = normalize_axis(axis, len(dims))
        step = steps[i] if steps else 1
        dim = dims[axis]
        if isinstance(dim, Dim):
            if (starts[i], step) != (0, 1) or ends[i] < 2**31 - 1:
                c.fixed((dim,))
            continue
        whole[axis] = _normalized(starts[i], ends[i], step, dim)
    first, last, strides = zip(*whole, strict=True) if whole else ((), (), ())
    return first, last, strides


def _normalized(start: int, stop: int, step: int, dim: int) -> tuple[int, int, int]:
    if step == 0:
        raise ModelError("a slice of step 0")
    begin, end, step = slice(start, stop, step).indices(dim)
    return (begin, max(begin, end), step) if step > 0 else (begin, min(begin, end), step)


@translate("Slice")
def slice_node(c: Context) -> Operand:
    """Indices clamped and normalized."""
    starts, stops, steps = normalized_slices(c, c.type(0).shape)
    if all(
        (a, s) == (0, 1) and (b == d or isinstance(d, Dim))
        for a, b, s, d in zip(starts, stops, steps, c.type(0).shape, strict=True)
    ):
        return c.value(0)
    return c.emit(Slice(starts, stops, steps), c.value(0))


@translate("Split")
def split(c: Context) -> tuple[Operand, ...]:
    """One slice for each output."""
    x = c.value(0)
    axis = normalize_axis(c.integer("axis", 0), x.type.rank)
    (extent,) = c.fixed((x.type.shape[axis],))
    sizes = c.axes(1, "split")
    if sizes is None:
        count = c.integer("num_outputs", len(c.outputs))
        if count != len(c.outputs):
            raise ModelError(f"num_outputs is {count}, but {len(c.outputs)} are named", where=c.origin)
        chunk = -(-extent // count)
        sizes = tuple(max(min(chunk, extent - i * chunk), 0) for i in range(count))
    if sum(sizes) != extent or len(sizes) < len(c.outputs):
        raise ModelError(f"split of {extent} elements into {sizes}", where=c.origin)
    ends = np.cumsum(sizes).tolist()
    return tuple(slice_axis(c, x, axis, end - n, end) for end, n in zip(ends, sizes, strict=True))


# Padding -----------------------------------------------------------------------------------------------------------


@translate("Pad")
def pad(c: Context) -> Operand:
    """Amounts are operands from opset 11 on."""
    x = c.value(0)
    rank = x.type.rank
    pads = c.integers(1) if c.version >= 11 else c.ints("pads")
    axes = [normalize_axis(a, rank) for a in c.integers(3)] if c.has(3) else list(range(rank))
    amounts = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        amounts[axis] = (pads[i], pads[i + len(axes)])
    value = 0.0
    if c.version < 11:
        value = c.real("value", 0.0)
    elif c.has(2):
        value = float(c.constant(2, "the padding value").reshape(-1)[0])
    return c.emit(Pad(tuple(amounts), value, c.text("mode", "constant")), x)


@translate("DepthToSpace")
def depth_to_space(c: Context) -> Operand:
    """Blocks of channels become blocks of pixels."""
    n, channels, height, width = c.type(0).shape
    block = c.integer("blocksize")
    (deep,) = c.fixed((channels,))
    high, wide = c.fixed((height, width))
    thin = deep // block**2
    if c.text("mode", "DCR") == "DCR":
        split_shape, order = (n, block, block, thin, high, wide), (0, 3, 4, 1, 5, 2)
    else:
        split_shape, order = (n, thin, block, block, high, wide), (0, 1, 4, 2, 5, 3)
    x = transpose(c, reshape(c, c.value(0), split_shape), order)
    return reshape(c, x, (n, thin, high * block, wide * block))


@translate("SpaceToDepth")
def space_to_depth(c: Context) -> Operand:
    """Blocks of pixels become blocks of channels."""
    n = c.type(0).shape[0]
    channels, height, width = c.fixed(c.type(0).shape[1:])
    block = c.integer("blocksize")
    high, wide = height // block, width // block
    x = reshape(c, c.value(0), (n, channels, high, block, wide, block))
    order = (0, 3, 5, 1, 2, 4) if c.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return reshape(c, transpose(c, x, order), (n, channels * block**2, high, wide))
