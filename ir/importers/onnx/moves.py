"""Movements that translations of every family need, on values and on stored constants alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...constants import Tensor
from ...ops.shape import Expand, Reshape, Slice, Transpose
from ...types import Dim, Shape, per_channel
from .context import Context
from .operand import Operand, StoredConstant


def reshape(c: Context, x: Operand, shape: Sequence[int | Dim]) -> Operand:
    """``x`` under another shape; one -1 is worked out."""
    shape = resolve(x.type.shape, shape)
    if shape == x.type.shape:
        return x
    if isinstance(x, StoredConstant) and x.quant.axis is None:
        return StoredConstant(Tensor.of(x.data.numpy().reshape(c.fixed(shape))), x.quant)
    return c.emit(Reshape(shape), x)


def resolve(old: Shape, new: Sequence[int | Dim]) -> Shape:
    """``new`` with a -1 replaced by what makes the number of elements equal, symbolic dimensions included."""
    if -1 not in new:
        return tuple(new)
    place = list(new).index(-1)
    rest = [d for i, d in enumerate(new) if i != place]
    old_dims, new_dims = [d for d in old if isinstance(d, Dim)], [d for d in rest if isinstance(d, Dim)]
    for dim in new_dims:
        if dim in old_dims:
            old_dims.remove(dim)
    old_count = int(np.prod([d for d in old if isinstance(d, int)], dtype=np.int64))
    new_count = int(np.prod([d for d in rest if isinstance(d, int)], dtype=np.int64))
    missing: int | Dim
    if old_dims and old_count == new_count:
        missing = old_dims[0]
    else:
        missing = old_count // new_count if new_count else 0
    return (*new[:place], missing, *new[place + 1 :])


def transpose(c: Context, x: Operand, permutation: Sequence[int]) -> Operand:
    """``x`` with its axes permuted; stored constants keep their parameters."""
    permutation = tuple(permutation)
    if permutation == tuple(range(x.type.rank)):
        return x
    if isinstance(x, StoredConstant):
        quant = x.quant
        if quant.axis is not None:
            quant = per_channel(quant.scale, quant.zero_point, permutation.index(quant.axis % x.type.rank))
        return StoredConstant(Tensor.of(x.data.numpy().transpose(permutation)), quant)
    return c.emit(Transpose(permutation), x)


def expand(c: Context, x: Operand, shape: Sequence[int | Dim]) -> Operand:
    """``x`` broadcast to ``shape``."""
    return x if tuple(shape) == x.type.shape else c.emit(Expand(tuple(shape)), x)


def slice_axis(c: Context, x: Operand, axis: int, start: int, stop: int, step: int = 1) -> Operand:
    """``x[start:stop:step]`` along one axis, indices normalized."""
    whole = [(0, d, 1) if isinstance(d, int) else (0, -1, 1) for d in x.type.shape]
    if whole[axis] == (start, stop, step):
        return x
    whole[axis] = (start, stop, step)
    starts, stops, steps = zip(*whole, strict=True)
    return c.emit(Slice(starts, stops, steps), x)
