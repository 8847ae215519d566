"""Convolutions in one to three dimensions, and their transposes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ....graph import Value
from ....ops.conv import Conv, ConvTranspose, Padding
from ..context import Context, Refusal, pairs, spread, translate

aten = torch.ops.aten
Sizes = int | Sequence[int]


@translate(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
def conv(
    ctx: Context,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Value:
    rank = weight.type.rank - 2
    return _conv(ctx, x, weight, bias, stride, pairs(spread(padding, rank)), dilation, groups)


@translate(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding)
def conv_by_name(
    ctx: Context,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: str = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
) -> Value:
    kernel = ctx.static(weight)[2:]
    amounts = [0] * len(kernel)
    if padding == "same":
        amounts = [d * (k - 1) for k, d in zip(kernel, spread(dilation, len(kernel)), strict=True)]
    # The odd element goes behind, as in torch.
    return _conv(ctx, x, weight, bias, stride, tuple((a // 2, a - a // 2) for a in amounts), dilation, groups)


@translate(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
def conv_transpose(
    ctx: Context,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Value:
    rank = weight.type.rank - 2
    op = ConvTranspose(
        spread(stride, rank),
        pairs(spread(padding, rank)),
        spread(output_padding, rank),
        spread(dilation, rank),
        groups,
    )
    return _batched(ctx, op, x, weight, bias)


@translate(aten.convolution.default)
def convolution(
    ctx: Context,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Value:
    if transposed:
        return conv_transpose(ctx, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(ctx, x, weight, bias, stride, padding, dilation, groups)


def _conv(
    ctx: Context,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Padding,
    dilation: Sizes,
    groups: int,
) -> Value:
    rank = weight.type.rank - 2
    return _batched(ctx, Conv(spread(stride, rank), padding, spread(dilation, rank), groups), x, weight, bias)


def _batched(ctx: Context, op: Conv | ConvTranspose, x: Value, weight: Value, bias: Value | None) -> Value:
    """One image may come without a batch axis."""
    if not weight.type.is_static:
        raise Refusal("the shape of the weight is not fixed")
    single = x.type.rank == weight.type.rank - 1
    if single:
        x = ctx.reshape(x, (1, *x.type.shape))
    y = ctx.emit(op, x, weight, *([bias] if bias is not None else []))
    return ctx.reshape(y, y.type.shape[1:]) if single else y
