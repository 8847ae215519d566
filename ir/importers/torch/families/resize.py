"""Interpolation: torch's coordinate conventions as the scale and offset of :class:`Resize`; sampling and folding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ....graph import Value
from ....ops.resize import Resize
from ....ops.sampling import Col2Im, GridSample
from ....ops.shape import Gather
from ....types import Shape
from ..context import Context, Refusal, pairs, translate

aten = torch.ops.aten
Scales = Sequence[float] | None


@translate(aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec)
def nearest(ctx: Context, x: Value, size: object, scales: Scales = None) -> Value:
    return _nearest(ctx, x, scales, 0.0)


@translate(aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact3d.vec)
def nearest_exact(ctx: Context, x: Value, size: object, scales: Scales = None) -> Value:
    """The element under the centre of each output."""
    return _nearest(ctx, x, scales, 0.5)


def _nearest(ctx: Context, x: Value, scales: Scales, shift: float) -> Value:
    """Output i reads element floor((i + shift) * scale), where torch rounds each step to float32.

    An axis on which those roundings change a place is gathered from the places themselves.
    """
    before, after = ctx.static(x), _fixed(ctx.shape)
    steps = [1.0, 1.0, *(_step(n, m, scales, i) for i, (n, m) in enumerate(zip(before[2:], after[2:], strict=True)))]
    # An exact result must not fall below its integer by the rounding of a float64 product.
    op = Resize(after, tuple(steps), (0.0, 0.0, *(shift * s + 1e-6 for s in steps[2:])), "nearest", "floor")
    odd: dict[int, np.ndarray] = {}
    for axis in range(2, len(before)):
        output = np.arange(after[axis], dtype=np.float32) + np.float32(shift)
        places = np.minimum(np.floor(output * np.float32(steps[axis])).astype(np.int64), before[axis] - 1)
        if not np.array_equal(op.taps(axis, before[axis])[0][:, 0], places):
            odd[axis] = places
    if not odd:
        return ctx.emit(op, x)
    for axis in range(2, len(before)):
        places = odd.get(axis, op.taps(axis, before[axis])[0][:, 0])
        x = ctx.emit(Gather(axis), x, ctx.constant(places))
    return x


def _step(size: int, out: int, scales: Scales, axis: int) -> float:
    return 1.0 / scales[axis] if scales else size / out


def _fixed(shape: Shape) -> tuple[int, ...]:
    sizes = tuple(size for size in shape if isinstance(size, int))
    if len(sizes) != len(shape):
        raise Refusal("a size that is not fixed")
    return sizes


@translate(aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec)
def linear(ctx: Context, x: Value, size: object, align_corners: bool, scales: Scales = None) -> Value:
    return _smooth(ctx, x, scales, "linear", align_corners)


@translate(aten.upsample_bicubic2d.vec)
def cubic(ctx: Context, x: Value, size: object, align_corners: bool, scales: Scales = None) -> Value:
    return _smooth(ctx, x, scales, "cubic", align_corners)


@translate(aten._upsample_bilinear2d_aa.default, aten._upsample_bilinear2d_aa.vec)
def linear_antialiased(ctx: Context, x: Value, size: object, align_corners: bool, *scales: Any) -> Value:
    return _smooth(ctx, x, _per_axis(scales), "linear", align_corners, antialias=True)


@translate(aten._upsample_bicubic2d_aa.default, aten._upsample_bicubic2d_aa.vec)
def cubic_antialiased(ctx: Context, x: Value, size: object, align_corners: bool, *scales: Any) -> Value:
    return _smooth(ctx, x, _per_axis(scales), "cubic", align_corners, antialias=True)


def _per_axis(scales: Sequence[Any]) -> Scales:
    """Scale factors that come as one list or as an argument each; None where only the size is given."""
    factors: Sequence[Any] | None = scales
    if len(scales) == 1 and not isinstance(scales[0], float):
        factors = scales[0]
    return None if not factors or None in factors else factors


@translate(aten.grid_sampler.default, aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
def grid_sample(ctx: Context, x: Value, grid: Value, mode: int, padding: int, align_corners: bool) -> Value:
    modes, paddings = ("linear", "nearest", "cubic"), ("zeros", "border", "reflection")
    return ctx.emit(GridSample(modes[mode], paddings[padding], align_corners), x, grid)


@translate(aten.col2im.default)
def fold(
    ctx: Context,
    x: Value,
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    if x.type.rank != 3 or not all(isinstance(extent, int) for extent in size):
        raise Refusal("without a batch axis, or into a size that is not fixed")
    ctx.static(x)
    return ctx.emit(Col2Im(tuple(size), tuple(kernel), tuple(stride), pairs(padding), tuple(dilation)), x)


def _smooth(ctx: Context, x: Value, scales: Scales, mode: str, align: bool, *, antialias: bool = False) -> Value:
    """With ``align`` the corners' centres map to each other, else the outer edges do."""
    before, after = ctx.static(x), _fixed(ctx.shape)
    scale, offset = [1.0, 1.0], [0.0, 0.0]
    for axis, (size, out) in enumerate(zip(before[2:], after[2:], strict=True)):
        step = ((size - 1) / (out - 1) if out > 1 else 0.0) if align else _step(size, out, scales, axis)
        scale.append(step)
        offset.append(0.0 if align and not antialias else 0.5 * step - 0.5)
    if not antialias:
        return ctx.emit(Resize(after, tuple(scale), tuple(offset), mode), x)
    # Pillow's filter, unlike that of the plain mode, has -0.5 for Keys' constant, and leaves out what is outside.
    op = Resize(after, tuple(scale), tuple(offset), mode, cubic_a=-0.5, antialias=True, exclude_outside=True)
    return ctx.emit(op, x)
