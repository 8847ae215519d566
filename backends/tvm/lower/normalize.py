"""qsoftmax and qlayer_norm."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ....ir.graph import Node
from ....ir.ops.integer import QLayerNorm, QSoftmax, multiplier, quant_of
from ...plan.builder import PlanBuilder
from ..kernels.layer_norm import LayerNormSpec
from ..kernels.softmax import SoftmaxSpec
from .registry import lowers
from .weighted import rounding_constants


@lowers(QSoftmax)
def lower_softmax(site: PlanBuilder, node: Node) -> None:
    """Rows are contiguous in the result; they need not be in the input."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, QSoftmax)
    axis = op.axis % x.rank
    order = (*(a for a in x.order() if a != axis), axis)
    out = site.allocate(node.output, order)
    constants: dict[str, npt.ArrayLike] = {"exponentials": op.exponentials.numpy()}
    if op.out is not None:
        constants |= {"factor": multiplier([], op.out)[0], **rounding_constants(site, op.out)}
    spec = SoftmaxSpec(x.shape, axis, x.strides, out.strides, "byte" if op.out else "f32")
    site.call(spec, node.where, {"x": x, "out": out}, constants)


@lowers(QLayerNorm)
def lower_layer_norm(site: PlanBuilder, node: Node) -> None:
    """Every row of the normalized axes is contiguous."""
    op = node.op
    assert isinstance(op, QLayerNorm)
    x = site.contiguous(site.view(node.inputs[0]))
    out = site.allocate(node.output)
    target = out if out.is_dense() else site.scratch_view(out.shape, out.dtype)
    length = op.gain.size
    constants: dict[str, npt.ArrayLike] = {
        "gain": op.gain.numpy().reshape(-1),
        "shift": op.shift.numpy().reshape(-1),
        "bias": np.float32(op.bias(node.inputs[0].type)),
        "x_zero_point": site.stored(quant_of(node.inputs[0].type).zero_point[0]),
    }
    if op.out is not None:
        constants |= rounding_constants(site, op.out)
    spec = LayerNormSpec(math.prod(x.shape) // length, length, out="byte" if op.out else "f32")
    site.call(spec, node.where, {"x": x, "out": target}, constants)
    if target is not out:
        site.copy(target, out, node.where)
