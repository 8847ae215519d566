"""Complex numbers as pairs of real values: Fourier transforms, rotations, and what moves their elements about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ....graph import Value
from ....ops import math as functions
from ....ops.elementwise import Add, Mul, Neg, Sqrt, Sub
from ....ops.matmul import MatMul
from ....ops.shape import Concat
from ....types import normalize_axis
from ..context import Complex, Context, Operand, Refusal, Translation, translate, translations

aten = torch.ops.aten

_ON_COMPLEX: dict[object, Translation] = {}

PART_BY_PART = frozenset(
    {
        *(aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.squeeze.dim, aten.squeeze.dims),
        *(aten.squeeze.default, aten.unsqueeze.default, aten.permute.default, aten.transpose.int, aten.t.default),
        *(aten.clone.default, aten.alias.default, aten.detach.default, aten.expand.default, aten.repeat.default),
        *(aten.slice.Tensor, aten.select.int, aten.narrow.default, aten.split.Tensor, aten.split_with_sizes.default),
        *(aten.unbind.int, aten.cat.default, aten.stack.default, aten.flip.default, aten.roll.default),
        *(
            aten.constant_pad_nd.default,
            aten.neg.default,
            aten.sum.dim_IntList,
            aten.mean.dim,
            aten.index_select.default,
        ),
        *(aten.unfold.default, aten.index.Tensor, aten.flatten.using_ints, aten.contiguous.default),
    }
)
"""Ops that treat real and imaginary parts alike."""


def translate_complex(ctx: Context, target: object, args: Any, kwargs: Any) -> Any:
    """The translation of a call that has a complex operand."""
    if target in _ON_COMPLEX:
        return _ON_COMPLEX[target](ctx, *args, **kwargs)
    if target not in PART_BY_PART:
        raise Refusal("of complex numbers")
    real, imaginary = (
        translations()[target](ctx, *_parts(args, pick), **_parts(kwargs, pick))
        for pick in (lambda z: z.real, lambda z: z.imaginary)
    )
    if isinstance(real, Value):
        return Complex(real, imaginary)
    return tuple(Complex(*pair) for pair in zip(real, imaginary, strict=True))


def _parts(tree: Any, pick: Callable[[Complex], Value]) -> Any:
    return pytree.tree_map(lambda leaf: pick(leaf) if isinstance(leaf, Complex) else leaf, tree)


def understands(target: object) -> bool:
    """Whether calls with complex operands have a translation, even where those with real ones have none."""
    return target in _ON_COMPLEX


def _on_complex(*targets: object) -> Callable[[Translation], Translation]:
    def register(function: Translation) -> Translation:
        _ON_COMPLEX.update(dict.fromkeys(targets, function))
        return function

    return register


# Making them, and taking them apart ----------------------------------------------------------------------------------


@translate(aten.complex.default)
def pair(ctx: Context, real: Value, imaginary: Value) -> Complex:
    return Complex(real, imaginary)


@translate(aten.view_as_complex.default)
def from_real(ctx: Context, x: Value) -> Complex:
    shape = x.type.shape[:-1]
    axis = x.type.rank - 1
    return Complex(*(ctx.reshape(ctx.slice(x, axis, part, part + 1), shape) for part in (0, 1)))


@translate(aten.polar.default)
def polar(ctx: Context, size: Value, angle: Value) -> Complex:
    return Complex(*(ctx.emit(Mul(), size, ctx.emit(turn(), angle)) for turn in (functions.Cos, functions.Sin)))


@_on_complex(aten.view_as_real.default)
def as_real(ctx: Context, z: Complex) -> Value:
    wide = (*z.real.type.shape, 1)
    return ctx.emit(Concat(len(wide) - 1), ctx.reshape(z.real, wide), ctx.reshape(z.imaginary, wide))


@_on_complex(aten.real.default)
def real_part(ctx: Context, z: Complex) -> Value:
    return z.real


@_on_complex(aten.imag.default)
def imaginary_part(ctx: Context, z: Complex) -> Value:
    return z.imaginary


@translate(aten._neg_view.default)
def negative(ctx: Context, x: Value) -> Value:
    """The imaginary part of a conjugate."""
    return ctx.emit(Neg(), x)


@_on_complex(aten._to_copy.default, aten.resolve_conj.default, aten.resolve_neg.default)
def same(ctx: Context, z: Complex, **_: Any) -> Complex:
    if not ctx.output.is_complex():
        raise Refusal("to real ones: take .real or .abs()")
    return z


# Arithmetic ----------------------------------------------------------------------------------------------------------


@_on_complex(aten.abs.default)
def magnitude(ctx: Context, z: Complex) -> Value:
    squares = [ctx.emit(Mul(), part, part) for part in (z.real, z.imaginary)]
    return ctx.emit(Sqrt(), ctx.emit(Add(), *squares))


@_on_complex(aten._conj.default, aten.conj_physical.default, aten._conj_physical.default)
def conjugate(ctx: Context, z: Complex) -> Complex:
    return Complex(z.real, ctx.emit(Neg(), z.imaginary))


@_on_complex(aten.add.Tensor)
def add(ctx: Context, a: Complex | Operand, b: Complex | Operand, alpha: float = 1) -> Complex:
    return _sum(ctx, Add(), a, b, alpha)


@_on_complex(aten.sub.Tensor)
def sub(ctx: Context, a: Complex | Operand, b: Complex | Operand, alpha: float = 1) -> Complex:
    return _sum(ctx, Sub(), a, b, alpha)


def _sum(ctx: Context, op: Add | Sub, a: Complex | Operand, b: Complex | Operand, alpha: float) -> Complex:
    if alpha != 1:
        raise Refusal("with a factor")
    x, y = _complex(ctx, a), _complex(ctx, b)
    return Complex(ctx.emit(op, x.real, y.real), ctx.emit(op, x.imaginary, y.imaginary))


@_on_complex(aten.mul.Tensor, aten.mul.Scalar)
def mul(ctx: Context, a: Complex | Operand, b: Complex | Operand) -> Complex:
    if not isinstance(a, Complex):
        a, b = b, a
    assert isinstance(a, Complex)
    if not isinstance(b, Complex):
        factor = ctx.operand(b, ctx.dtype)
        return Complex(ctx.emit(Mul(), a.real, factor), ctx.emit(Mul(), a.imaginary, factor))
    real = ctx.emit(Sub(), ctx.emit(Mul(), a.real, b.real), ctx.emit(Mul(), a.imaginary, b.imaginary))
    return Complex(real, ctx.emit(Add(), ctx.emit(Mul(), a.real, b.imaginary), ctx.emit(Mul(), a.imaginary, b.real)))


def _complex(ctx: Context, x: Complex | Operand) -> Complex:
    if isinstance(x, Complex):
        return x
    return ctx.with_zeros(ctx.operand(x, ctx.dtype))


# Fourier transforms --------------------------------------------------------------------------------------------------


@translate(aten._fft_r2c.default)
def spectrum(ctx: Context, x: Value, axes: Sequence[int], norm: int, onesided: bool) -> Complex:
    """Of a real signal; the last of the axes keeps half of it."""
    *others, last = axes
    z = _transform(ctx, [x], last, norm, forward=True, onesided=onesided)
    return _along(ctx, z, others, norm, forward=True)


@_on_complex(aten._fft_c2c.default)
def transform(ctx: Context, z: Complex, axes: Sequence[int], norm: int, forward: bool) -> Complex:
    return _along(ctx, z, axes, norm, forward)


@_on_complex(aten._fft_c2r.default)
def signal(ctx: Context, z: Complex, axes: Sequence[int], norm: int, length: int) -> Value:
    """The real signal whose spectrum is ``z``, of which the last of the axes holds half."""
    *others, last = axes
    z = _along(ctx, z, others, norm, forward=False)
    axis = normalize_axis(last, z.real.type.rank)
    rows = np.arange(ctx.static(z.real)[axis])
    angle = 2 * np.pi * np.outer(rows, np.arange(length)) / length
    # Frequencies other than the first and, for even lengths, the last stand for their mirror images too.
    twice = np.where((rows == 0) | (2 * rows == length), 1.0, 2.0)[:, None]
    matrix = np.concatenate([twice * np.cos(angle), -twice * np.sin(angle)]) * _factor(norm, length)
    return _product(ctx, [z.real, z.imaginary], axis, matrix)


def _along(ctx: Context, z: Complex, axes: Sequence[int], norm: int, forward: bool) -> Complex:
    for axis in axes:
        imaginary = ctx.known(z.imaginary)
        is_real = imaginary is not None and not imaginary.any()
        z = _transform(ctx, [z.real] if is_real else [z.real, z.imaginary], axis, norm, forward)
    return z


def _transform(
    ctx: Context, parts: Sequence[Value], axis: int, norm: int, forward: bool, onesided: bool = False
) -> Complex:
    """The discrete Fourier transform as one product with its matrix, for the real part alone or both."""
    axis = normalize_axis(axis, parts[0].type.rank)
    length = ctx.static(parts[0])[axis]
    kept = length // 2 + 1 if onesided else length
    angle = 2 * np.pi * (np.outer(np.arange(length), np.arange(kept)) % length) / length
    cosine, sine = np.cos(angle), -np.sin(angle) if forward else np.sin(angle)
    rows = [np.concatenate([cosine, sine], 1), np.concatenate([-sine, cosine], 1)]
    matrix = np.concatenate(rows[: len(parts)]) * _factor(norm, length)
    y = _product(ctx, parts, axis, matrix)
    return Complex(ctx.slice(y, axis, 0, kept), ctx.slice(y, axis, kept, 2 * kept))


def _factor(norm: int, length: int) -> float:
    return (1.0, 1.0 / math.sqrt(length), 1.0 / length)[norm]


def _product(ctx: Context, parts: Sequence[Value], axis: int, matrix: np.ndarray) -> Value:
    """What lies along ``axis``, the parts behind each other, times a constant matrix."""
    x = parts[0] if len(parts) == 1 else ctx.emit(Concat(axis), *parts)
    order = [*(i for i in range(x.type.rank) if i != axis), axis]
    back = [order.index(i) for i in range(x.type.rank)]
    constant = ctx.constant(matrix.astype(x.type.dtype.numpy))
    return ctx.transpose(ctx.emit(MatMul(), ctx.transpose(x, order), constant), back)
