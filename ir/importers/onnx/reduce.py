"""Reductions, and what is composed of them."""

from __future__ import annotations

from ...errors import ModelError
from ...ops import reduce as rd
from ...ops import scan
from ...ops.cast import Cast
from ...ops.elementwise import Abs, Log, Mul, Sqrt
from ...ops.logic import Pow
from ...ops.reduce import Reduction
from ...types import DType, normalize_axis
from .context import Context
from .operand import Operand
from .registry import translate

_PLAIN: dict[str, type[Reduction]] = {
    "ReduceMax": rd.ReduceMax,
    "ReduceMean": rd.ReduceMean,
    "ReduceMin": rd.ReduceMin,
    "ReduceProd": rd.ReduceProd,
    "ReduceSum": rd.ReduceSum,
}
_COMPOSED = ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")


def _axes(c: Context) -> tuple[int, ...]:
    """The axes to reduce, all when left out; none when asked to do nothing."""
    rank = c.type(0).rank
    axes = c.axes(1)
    if not axes:
        return () if c.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({normalize_axis(axis, rank) for axis in axes}))


def _keep(c: Context) -> bool:
    return bool(c.integer("keepdims", 1))


@translate(*_PLAIN)
def plain(c: Context) -> Operand:
    """The op of the same meaning."""
    x, op = c.value(0), _PLAIN[c.op_type](_axes(c), _keep(c))
    if x.type.dtype is DType.BOOL:
        # max and min of truth values, which are numbers 0 and 1.
        return c.emit(Cast(DType.BOOL), c.emit(op, c.emit(Cast(DType.U8), x)))
    return c.emit(op, x)


@translate(*_COMPOSED)
def composed(c: Context) -> Operand:
    """Norms and logarithms of sums."""
    x, axes, keep = c.value(0), _axes(c), _keep(c)
    match c.op_type:
        case "ReduceL1":
            return c.emit(rd.ReduceSum(axes, keep), c.emit(Abs(), x))
        case "ReduceL2":
            return c.emit(Sqrt(), c.emit(rd.ReduceSum(axes, keep), c.emit(Mul(), x, x)))
        case "ReduceSumSquare":
            return c.emit(rd.ReduceSum(axes, keep), c.emit(Mul(), x, x))
        case "ReduceLogSum":
            return c.emit(Log(), c.emit(rd.ReduceSum(axes, keep), x))
        case _:
            return c.emit(rd.ReduceLogSumExp(axes, keep), x)


def lp_norm(c: Context, x: Operand, axes: tuple[int, ...], p: int) -> Operand:
    """(sum |x|^p)^(1/p) over ``axes``, which stay as size 1."""
    if p == 1:
        return c.emit(rd.ReduceSum(axes, keep=True), c.emit(Abs(), x))
    if p == 2:
        return c.emit(Sqrt(), c.emit(rd.ReduceSum(axes, keep=True), c.emit(Mul(), x, x)))
    power, root = (c.const(e, x.type.dtype) for e in (float(p), 1.0 / p))
    return c.emit(Pow(), c.emit(rd.ReduceSum(axes, keep=True), c.emit(Pow(), c.emit(Abs(), x), power)), root)


@translate("ArgMax", "ArgMin")
def arg(c: Context) -> Operand:
    """Where the extreme element is."""
    kind: type[rd.ArgReduction] = rd.ArgMax if c.op_type == "ArgMax" else rd.ArgMin
    axis = normalize_axis(c.integer("axis", 0), c.type(0).rank)
    return c.emit(kind(axis, _keep(c), bool(c.integer("select_last_index", 0))), c.value(0))


@translate("CumSum", "CumProd")
def cumulative(c: Context) -> Operand:
    """Running sums or products along an axis that is an operand."""
    axis = normalize_axis(int(c.constant(1, "the axis").reshape(-1)[0]), c.type(0).rank)
    kind: type[scan.Cumulative] = scan.CumSum if c.op_type == "CumSum" else scan.CumProd
    return c.emit(kind(axis, bool(c.integer("exclusive", 0)), bool(c.integer("reverse", 0))), c.value(0))


@translate("TopK")
def top_k(c: Context) -> tuple[Operand, ...]:
    """The largest or smallest elements and where they are."""
    if c.version >= 10:
        (k,) = c.integers(1)
    else:
        k = c.integer("k")
    axis = normalize_axis(c.integer("axis", -1), c.type(0).rank)
    (extent,) = c.fixed((c.type(0).shape[axis],))
    if not 0 <= k <= extent:
        raise ModelError(f"the {k} largest of {extent} elements", where=c.origin)
    return c.emit_all(scan.TopK(k, axis, bool(c.integer("largest", 1))), c.value(0))
