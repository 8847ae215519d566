"""qadd, qsub, qmul, requantize and qtable."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ....ir.graph import Node
from ....ir.ops.integer import QAdd, QBinary, QMul, QSub, QTable, Requantize, multiplier, quant_of
from ...plan.builder import Constants, PlanBuilder
from ...plan.views import View
from ..kernels.elementwise import BinarySpec
from ..kernels.epilogue import Epilogue
from ..kernels.table import TableSpec
from ..kernels.unary import UnarySpec
from .registry import lowers
from .weighted import rounding_constants

NAMES: dict[type[QBinary], Any] = {QAdd: "add", QSub: "sub", QMul: "mul"}


@lowers(QAdd, QSub, QMul)
def lower_binary(site: PlanBuilder, node: Node) -> None:
    """Both operands broadcast by stride 0; the result nests its axes as the larger operand does."""
    op = node.op
    assert isinstance(op, QBinary)
    a, b = (site.view(value) for value in node.inputs)
    leader = max((a, b), key=lambda view: view.size)
    order = leader.order() if leader.rank == len(node.output.type.shape) else None
    out = site.allocate(node.output, order)
    a, b = (site.beside(view, out).expanded(out.shape) for view in (a, b))
    types = [quant_of(value.type) for value in node.inputs]
    constants: dict[str, npt.ArrayLike] = {
        "a_zero_point": site.stored(types[0].zero_point[0]),
        "b_zero_point": site.stored(types[1].zero_point[0]),
    }
    if isinstance(op, QMul):
        constants["multiplier"] = multiplier(types, op.out)[0]
    else:
        constants["a_multiplier"], constants["b_multiplier"] = (multiplier([q], op.out)[0] for q in types)
    if op.out is not None:
        constants |= rounding_constants(site, op.out, op.clamp)
    elif op.clamp is not None:
        constants["lo"], constants["hi"] = np.float32(op.clamp[0]), np.float32(op.clamp[1])
    epilogue = Epilogue("byte" if op.out else "f32")
    spec = BinarySpec(NAMES[type(op)], out.shape, a.strides, b.strides, out.strides, epilogue)
    site.call(spec.fitted(site.isa, constants), node.where, {"a": a, "b": b, "out": out}, constants)


@lowers(Requantize)
def lower_requantize(site: PlanBuilder, node: Node) -> None:
    """One factor for every element."""
    op = node.op
    assert isinstance(op, Requantize)
    quant = quant_of(node.inputs[0].type)
    constants: dict[str, npt.ArrayLike] = {
        "x_zero_point": site.stored(quant.zero_point[0]),
        "multiplier": multiplier([quant], op.out)[0],
        **rounding_constants(site, op.out),
    }
    unary(site, node, "requantize", constants)


@lowers(QTable)
def lower_table(site: PlanBuilder, node: Node) -> None:
    """256 entries, bytes or float32."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, QTable)
    out = site.allocate(node.output, x.order())
    spec = TableSpec(out.shape, x.strides, out.strides, "byte" if op.out else "f32")
    site.call(spec, node.where, {"x": x, "out": out}, {"table": op.table.numpy()})


def unary(site: PlanBuilder, node: Node, op: Any, constants: Constants, x: View | None = None) -> View:
    """A conversion of every element of the node's first operand, or of ``x`` for it, in the order it lies in."""
    x = x or site.view(node.inputs[0])
    out = site.allocate(node.output, x.order())
    site.call(UnarySpec(op, out.shape, x.strides, out.strides), node.where, {"x": x, "out": out}, constants)
    return out
