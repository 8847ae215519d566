"""Interpolation: torch's coordinate conventions as the scale and offset of :class:`Resize`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ....graph import Value
from ....ops.resize import Resize
from ..context import Context, Refusal, translate

aten = torch.ops.aten
Scales = Sequence[float] | None


@translate(
    aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec
)
def nearest(ctx: Context, x: Value, size: object, scales: Scales = None) -> Value:
    return _resize(ctx, x, scales, "nearest", half_pixel=False, rounding="floor")


@translate(
    aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact3d.vec
)
def nearest_exact(ctx: Context, x: Value, size: object, scales: Scales = None) -> Value:
    """The element under the centre: floor((i + 1/2) * scale), the upper one of two at the same distance."""
    return _resize(ctx, x, scales, "nearest", half_pixel=True, rounding="round_prefer_ceil")


@translate(aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec)
def linear(ctx: Context, x: Value, size: object, align_corners: bool, scales: Scales = None) -> Value:
    return _resize(ctx, x, scales, "linear", half_pixel=True, align=align_corners)


@translate(aten.upsample_bicubic2d.vec)
def cubic(ctx: Context, x: Value, size: object, align_corners: bool, scales: Scales = None) -> Value:
    return _resize(ctx, x, scales, "cubic", half_pixel=True, align=align_corners)


def _resize(
    ctx: Context,
    x: Value,
    scales: Scales,
    mode: str,
    *,
    half_pixel: bool,
    align: bool = False,
    rounding: str = "round_prefer_floor",
) -> Value:
    before, after = ctx.static(x), ctx.shape
    sizes = tuple(size for size in after if isinstance(size, int))
    if len(sizes) != len(after):
        raise Refusal("a size that is not fixed")
    scale, offset = [1.0, 1.0], [0.0, 0.0]
    for axis, (size, out) in enumerate(zip(before[2:], sizes[2:], strict=True)):
        if align:
            step = (size - 1) / (out - 1) if out > 1 else 0.0
        else:
            step = 1.0 / scales[axis] if scales else size / out
        scale.append(step)
        offset.append(0.5 * step - 0.5 if half_pixel and not align else 0.0)
    return ctx.emit(Resize(sizes, tuple(scale), tuple(offset), mode, rounding), x)
