"""Reading and writing elements at computed places."""

from __future__ import annotations

import numpy as np

from ...errors import ModelError
from ...ops.cast import Cast, Where
from ...ops.index import GatherElements, GatherND, OneHot, ReverseSequence, ScatterElements, ScatterND, Trilu
from ...ops.logic import And, GreaterEqual, Less, Mod
from ...ops.shape import Gather, Slice
from ...types import DType, normalize_axis
from .attributes import element_type
from .builder import limit_size
from .context import Context
from .moves import reshape
from .operand import Operand
from .registry import translate


@translate("Gather")
def gather(c: Context) -> Operand:
    """numpy.take."""
    return c.emit(Gather(normalize_axis(c.integer("axis", 0), c.type(0).rank)), c.value(0), c.value(1))


@translate("GatherElements")
def gather_elements(c: Context) -> Operand:
    """numpy.take_along_axis."""
    return c.emit(GatherElements(normalize_axis(c.integer("axis", 0), c.type(0).rank)), c.value(0), c.value(1))


@translate("GatherND")
def gather_nd(c: Context) -> Operand:
    """Slices at tuples of indices."""
    return c.emit(GatherND(c.integer("batch_dims", 0)), c.value(0), c.value(1))


@translate("ScatterElements", "Scatter")
def scatter_elements(c: Context) -> Operand:
    """Elements along one axis."""
    axis = normalize_axis(c.integer("axis", 0), c.type(0).rank)
    return c.emit(ScatterElements(axis, c.text("reduction", "none")), *c.values())


@translate("ScatterND")
def scatter_nd(c: Context) -> Operand:
    """Slices at tuples of indices."""
    return c.emit(ScatterND(c.text("reduction", "none")), *c.values())


@translate("OneHot")
def one_hot(c: Context) -> Operand:
    """Negative indices count from the end; others outside give the off value."""
    indices, axis = c.value(0), c.integer("axis", -1)
    depth = int(c.constant(1, "the depth").reshape(-1)[0])
    if indices.type.dtype is not DType.I64:
        indices = c.emit(Cast(DType.I64), indices)
    low, size = (c.const(np.asarray(v, np.int64)) for v in (-depth, depth))
    inside = _within(c, indices, low, size)
    wrapped = c.emit(Where(), inside, c.emit(Mod(), indices, size), indices)
    hot = c.emit(OneHot(depth, normalize_axis(axis, indices.type.rank + 1)), wrapped)
    off, on = (_element(c, 2, i) for i in range(2))
    return c.emit(Where(), hot, on, off)


def _within(c: Context, x: Operand, low: Operand, high: Operand) -> Operand:
    return c.emit(And(), c.emit(GreaterEqual(), x, low), c.emit(Less(), x, high))


def _element(c: Context, index: int, place: int) -> Operand:
    """One element of a vector operand, as a scalar."""
    return reshape(c, c.emit(Slice((place,), (place + 1,), (1,)), c.value(index)), ())


@translate("Trilu")
def trilu(c: Context) -> Operand:
    """A triangle of each matrix."""
    k = int(c.constant(1, "the diagonal").reshape(-1)[0]) if c.has(1) else 0
    return c.emit(Trilu(bool(c.integer("upper", 1)), k), c.value(0))


@translate("ReverseSequence")
def reverse_sequence(c: Context) -> Operand:
    """Each sequence of a batch by its own length."""
    return c.emit(ReverseSequence(c.integer("batch_axis", 1), c.integer("time_axis", 0)), c.value(0), c.value(1))


# What is known at import -------------------------------------------------------------------------------------------


@translate("Range")
def range_node(c: Context) -> Operand:
    """A constant."""
    start, limit, delta = (c.constant(i) for i in range(3))
    if not delta.reshape(-1)[0]:
        raise ModelError("a range of step 0", where=c.origin)
    limit_size(abs(int((limit.item() - start.item()) / delta.item())), c.op_type)
    return c.const(np.arange(start.item(), limit.item(), delta.item()).astype(start.dtype))


@translate("NonZero")
def non_zero(c: Context) -> Operand:
    """Of a constant: the number of results is part of the output's shape."""
    return c.const(np.stack(np.nonzero(c.constant(0))).astype(np.int64))


@translate("Compress")
def compress(c: Context) -> Operand:
    """The elements a constant condition selects."""
    keep = np.flatnonzero(c.constant(1, "the condition"))
    x = c.value(0)
    axis = c.attr("axis")
    if axis is None:
        x, axis = reshape(c, x, (-1,)), 0
    axis = normalize_axis(int(axis), x.type.rank)
    (extent,) = c.fixed((x.type.shape[axis],))
    return c.emit(Gather(axis), x, c.const(keep[keep < extent].astype(np.int64)))


@translate("EyeLike")
def eye_like(c: Context) -> Operand:
    """A constant."""
    rows, columns = c.static_shape(0)
    code = c.attr("dtype")
    dtype = c.type(0).dtype if code is None else element_type(int(code), c.origin)
    limit_size(rows * columns, c.op_type)
    return c.const(np.eye(rows, columns, c.integer("k", 0)).astype(dtype.numpy))
