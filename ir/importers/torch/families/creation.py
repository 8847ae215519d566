"""Tensors that no input decides: filled, counted, and triangular ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ....graph import Value
from ....ops.index import Trilu
from ....ops.shape import Expand
from ..context import Context, Number, Operand, Refusal, translate

aten = torch.ops.aten


def _filled(ctx: Context, number: Operand) -> Value:
    """The result's shape full of one number; a constant where the shape is fixed."""
    shape = ctx.shape
    if not isinstance(number, Value):
        sizes = [size for size in shape if isinstance(size, int)]
        if len(sizes) == len(shape):
            return ctx.constant(np.full(sizes, number, ctx.dtype.numpy))
        number = ctx.scalar(number, ctx.dtype)
    scalar = ctx.cast(number, ctx.dtype)
    return scalar if not shape else ctx.emit(Expand(shape), scalar)


@translate(aten.new_full.default)
def new_full(ctx: Context, _: Value, size: Any, number: Operand, **__: Any) -> Value:
    return full(ctx, size, number)


@translate(aten.full.default, aten.full_like.default)
def full(ctx: Context, _: Any, number: Operand, **__: Any) -> Value:
    if not isinstance(number, Value | bool | int | float):
        raise Refusal("a value that is not fixed")
    return _filled(ctx, number)


@translate(aten.fill.Scalar, aten.fill.Tensor)
def fill(ctx: Context, _: Value, number: Operand) -> Value:
    return _filled(ctx, number)


@translate(aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default)
def zeros(ctx: Context, *_: Any, **__: Any) -> Value:
    return _filled(ctx, 0)


@translate(aten.ones.default, aten.ones_like.default, aten.new_ones.default)
def ones(ctx: Context, *_: Any, **__: Any) -> Value:
    return _filled(ctx, 1)


@translate(aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default, aten.empty_permuted.default)
def empty(ctx: Context, *_: Any, **__: Any) -> Value:
    """Nothing may read these elements before they are written, so zeros do."""
    return _filled(ctx, 0)


@translate(aten.scalar_tensor.default)
def scalar_tensor(ctx: Context, number: Number, **_: Any) -> Value:
    return ctx.scalar(number, ctx.dtype)


@translate(aten.arange.default, aten.arange.start, aten.arange.start_step)
def arange(ctx: Context, *bounds: Number, **_: Any) -> Value:
    if not all(isinstance(bound, int | float) for bound in bounds):
        raise Refusal("bounds that are not fixed")
    return ctx.constant(torch.arange(*bounds, dtype=ctx.output.dtype))


@translate(aten.linspace.default)
def linspace(ctx: Context, start: float, end: float, steps: int, **_: Any) -> Value:
    return ctx.constant(torch.linspace(start, end, steps, dtype=ctx.output.dtype))


@translate(aten.eye.default, aten.eye.m)
def eye(ctx: Context, *sizes: int, **_: Any) -> Value:
    return ctx.constant(torch.eye(*sizes, dtype=ctx.output.dtype))


@translate(aten.tril.default, aten.triu.default)
def triangle(ctx: Context, x: Value, diagonal: int = 0) -> Value:
    return ctx.emit(Trilu("triu" in str(ctx.node.target), diagonal), x)
