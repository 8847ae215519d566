"""Comparisons, logic and choices of any number type, and arithmetic of integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ....ir.graph import Node
from ....ir.op import Op
from ....ir.ops import elementwise as ew
from ....ir.ops import logic
from ....ir.ops import math as functions
from ....ir.ops.cast import BitCast, Where
from ....ir.types import DType, TensorType
from ...plan.builder import Array, PlanBuilder
from ...plan.views import ITEM_BYTES, View
from ..kernels.pointwise import COMPARISONS, PREDICATES, PointwiseSpec
from .registry import lowers

NUMBERS = ("bool", "uint8", "int8", "int32", "int64", "float32")
"""Element types that have kernels."""

LOGIC: dict[type[Op], str] = {
    logic.Equal: "equal",
    logic.Greater: "greater",
    logic.GreaterEqual: "greater_equal",
    logic.Less: "less",
    logic.LessEqual: "less_equal",
    logic.Not: "not",
    logic.And: "and",
    logic.Or: "or",
    logic.Xor: "xor",
    logic.ShiftLeft: "shift_left",
    logic.ShiftRight: "shift_right",
    logic.Mod: "mod",
    functions.IsNan: "isnan",
    functions.IsInf: "isinf",
    Where: "where",
}
"""Kernels of ops on every type that they are defined for."""

INTEGER: dict[type[Op], str] = {
    ew.Add: "add",
    ew.Sub: "sub",
    ew.Mul: "mul",
    ew.Div: "div",
    ew.Neg: "neg",
    ew.Abs: "abs",
    functions.Sign: "sign",
    logic.Minimum: "min",
    logic.Maximum: "max",
}
"""Kernels of float ops for integer operands."""

OF_BOOLS = {"add": "or", "mul": "and", "min": "and", "max": "or"}
BITS_OF_FLOATS = ("not", "and", "or", "xor", "shift_left", "shift_right")


def leading_order(views: Sequence[View], rank: int) -> tuple[int, ...] | None:
    """How the largest operand of full rank nests its axes; None when there is none."""
    full = [view for view in views if view.rank == rank and 0 not in view.strides]
    return max(full, key=lambda view: view.size).order() if full else None


def pointwise(site: PlanBuilder, label: str, name: str, views: Sequence[View], out: View) -> None:
    """One function of operands broadcast to ``out``; the last operand says the element type."""
    expanded = [view.expanded(out.shape) for view in views]
    spec = PointwiseSpec(name, views[-1].dtype, out.shape, tuple(view.strides for view in expanded), out.strides)
    inputs = {f"x{number}": view for number, view in enumerate(expanded)}
    site.call(spec, label, {**inputs, "out": out})


def computed(site: PlanBuilder, label: str, name: str, *views: View) -> View:
    """The result of a function in a new buffer."""
    shape = np.broadcast_shapes(*(view.shape for view in views))
    dtype = "bool" if name in COMPARISONS or name in PREDICATES else views[-1].dtype
    out = site.scratch_view(shape, dtype, leading_order(views, len(shape)))
    pointwise(site, label, name, views, out)
    return out


def constant(site: PlanBuilder, values: Array) -> View:
    """Numbers known at compile time."""
    return site.constant(values, TensorType(DType.from_numpy(values.dtype), values.shape))


def scalar(site: PlanBuilder, number: float, dtype: str) -> View:
    """One number, ready to broadcast."""
    return constant(site, np.array(number, dtype))


def kernel_name(op: Op, dtype: str) -> str | None:
    """The function for an op on operands of a type, or None."""
    name = LOGIC.get(type(op)) or INTEGER.get(type(op))
    if isinstance(op, logic.Mod) and op.truncated:
        name = "fmod"
    if isinstance(op, functions.IsInf) and not (op.positive and op.negative):
        name = "positive_inf" if op.positive else "negative_inf"
    if dtype == "bool":
        name = OF_BOOLS.get(name or "", name)
    known = dtype in NUMBERS and not (dtype == "float32" and (type(op) in INTEGER or name in BITS_OF_FLOATS))
    return name if known and not (dtype != "float32" and name in PREDICATES) else None


@lowers(*LOGIC)
def lower_logic(site: PlanBuilder, node: Node) -> None:
    """One kernel; of integers and bools, none is infinite or no number."""
    views = [site.view(value) for value in node.inputs]
    name = kernel_name(node.op, views[-1].dtype)
    if name is None:
        if isinstance(node.op, functions.IsNan | functions.IsInf) and views[0].dtype in NUMBERS:
            site.bind(node.output, scalar(site, False, "bool").expanded(node.output.type.static_shape))
            return
        site.refuse(node, f"no kernel for elements of {views[-1].dtype}")
        return
    out = site.allocate(node.output, leading_order(views, node.output.type.rank))
    pointwise(site, node.where, name, views, out)


def lower_integers(site: PlanBuilder, node: Node) -> bool:
    """Lower an arithmetic op on integers or bools; False when there is no kernel."""
    op = node.op
    views = [site.view(value) for value in node.inputs]
    dtype = views[0].dtype
    if dtype not in NUMBERS:
        return False
    order = leading_order(views, node.output.type.rank)
    if isinstance(op, functions.Floor | functions.Ceil | functions.Round):
        site.bind(node.output, views[0])
        return True
    bounds = (0.0, math.inf) if isinstance(op, ew.Relu) else getattr(op, "clamp", None)
    if isinstance(op, ew.Clamp):
        bounds = (op.low, op.high)
    name = kernel_name(op, dtype)
    if name is None and not isinstance(op, ew.Relu | ew.Clamp):
        return False
    steps = _bounds(site, bounds, dtype)
    current = views
    if name is not None:
        if not steps:
            pointwise(site, node.where, name, views, site.allocate(node.output, order))
            return True
        current = [computed(site, node.where, name, *views)]
    if not steps:
        site.bind(node.output, views[0])
        return True
    for function, bound in steps[:-1]:
        current = [computed(site, node.where, function, current[0], bound)]
    function, bound = steps[-1]
    pointwise(site, node.where, function, [current[0], bound], site.allocate(node.output, order))
    return True


def _bounds(site: PlanBuilder, bounds: tuple[float, float] | None, dtype: str) -> list[tuple[str, View]]:
    """The functions that keep a number within finite bounds."""
    if bounds is None:
        return []
    pairs = zip(("max", "min"), bounds, strict=True)
    return [(name, scalar(site, int(bound), dtype)) for name, bound in pairs if math.isfinite(bound)]


@lowers(BitCast, view=True)
def lower_bit_cast(site: PlanBuilder, node: Node) -> None:
    """The same bytes."""
    view, dtype = site.view(node.inputs[0]), node.output.type.dtype.numpy.name
    if view.dtype not in NUMBERS or dtype not in ITEM_BYTES:
        site.refuse(node, f"no kernel for elements of {view.dtype}")
        return
    site.bind(node.output, replace(view, dtype=dtype))
