"""Shape arithmetic over dimensions that are not known yet: it moves them about without computing with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...constants import Tensor
from ...types import Dim
from .context import Context
from .operand import Operand, ShapeConstant
from .shape import normalized_slices

Symbolic = np.ndarray
"""An array of dtype object that holds int and Dim."""


def on_shapes(c: Context) -> tuple[Operand, ...] | None:
    """The result of a node that reads symbolic dimensions, when it only moves or compares them; else None."""
    rule = _RULES.get(c.op_type)
    if rule is None or any(o is not None and not isinstance(o, ShapeConstant | Tensor) for o in c.operands):
        return None
    result = rule(c)
    return None if result is None else (settle(result),)


def settle(array: Symbolic) -> Operand:
    """An ordinary constant when no symbolic dimension is left."""
    flat = array.reshape(-1)
    if any(isinstance(d, Dim) for d in flat):
        return ShapeConstant(array)
    if flat.size and all(isinstance(d, bool | np.bool_) for d in flat):
        return Tensor.of(array.astype(np.bool_))
    return Tensor.of(array.astype(np.int64))


def _array(c: Context, index: int) -> Symbolic:
    operand = c.value(index)
    if isinstance(operand, ShapeConstant):
        return operand.data
    assert isinstance(operand, Tensor)
    return operand.numpy().astype(object)


def _gather(c: Context) -> Symbolic:
    return np.asarray(np.take(_array(c, 0), c.constant(1), axis=c.integer("axis", 0)), object)


def _slice(c: Context) -> Symbolic:
    array = _array(c, 0)
    starts, stops, steps = normalized_slices(c, array.shape)
    return array[tuple(slice(a, None if b < 0 else b, s) for a, b, s in zip(starts, stops, steps, strict=True))]


def _concat(c: Context) -> Symbolic:
    return np.concatenate([_array(c, i) for i in range(len(c.operands))], axis=c.integer("axis", 0))


def _reshape_like(c: Context) -> Symbolic:
    """Squeeze, Unsqueeze and Reshape of a vector or scalar."""
    array = _array(c, 0)
    if c.op_type == "Unsqueeze":
        return np.expand_dims(array, c.axes(1) or ())
    if c.op_type == "Squeeze":
        return np.squeeze(array, c.axes(1))
    return array.reshape(c.integers(1))


def _unchanged(c: Context) -> Symbolic:
    return _array(c, 0)


def _arithmetic(
    combine: Callable[[int, int], int], neutral: int, commutes: bool
) -> Callable[[Context], Symbolic | None]:
    def one(a: int | Dim, b: int | Dim) -> int | Dim | None:
        if not isinstance(a, Dim) and not isinstance(b, Dim):
            return combine(a, b)
        if b == neutral:
            return a
        return b if commutes and a == neutral else None

    def rule(c: Context) -> Symbolic | None:
        result = np.frompyfunc(one, 2, 1)(_array(c, 0), _array(c, 1))
        array = np.asarray(result, object)
        return None if any(x is None for x in array.reshape(-1)) else array

    return rule


def _equal(c: Context) -> Symbolic:
    return np.asarray(np.frompyfunc(lambda a, b: a == b, 2, 1)(_array(c, 0), _array(c, 1)), object)


def _where(c: Context) -> Symbolic:
    return np.asarray(np.where(c.constant(0), _array(c, 1), _array(c, 2)), object)


_RULES: dict[str, Callable[[Context], Symbolic | None]] = {
    "Add": _arithmetic(lambda a, b: a + b, 0, commutes=True),
    "Cast": _unchanged,
    "Concat": _concat,
    "Div": _arithmetic(lambda a, b: int(a / b), 1, commutes=False),
    "Equal": _equal,
    "Gather": _gather,
    "Identity": _unchanged,
    "Mul": _arithmetic(lambda a, b: a * b, 1, commutes=True),
    "Reshape": _reshape_like,
    "Slice": _slice,
    "Squeeze": _reshape_like,
    "Sub": _arithmetic(lambda a, b: a - b, 0, commutes=False),
    "Unsqueeze": _reshape_like,
    "Where": _where,
}
