"""quantize and dequantize: the edges of the integer network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ....ir.graph import Node
from ....ir.ops.integer import quant_of
from ....ir.ops.quantize import Dequantize, Quantize
from ....ir.types import DType
from ...plan.builder import PlanBuilder, channels_last_order
from ...plan.views import View
from ..kernels.unary import UnarySpec
from .elementwise import unary
from .registry import lowers
from .weighted import rounding_constants

IMAGE_RANK = 4


@lowers(Quantize)
def lower_quantize(site: PlanBuilder, node: Node) -> None:
    """Images become channels-last on the way, which is what most of their readers want."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, Quantize)
    if op.dtype is not DType.I8 or op.quant.axis is not None:
        site.refuse(node, "only per-tensor int8 activations have kernels")
        site.allocate(node.output)
        return
    order = channels_last_order(x.rank) if x.rank == IMAGE_RANK else x.order()
    out = site.allocate(node.output, order)
    constants: dict[str, npt.ArrayLike] = {"scale": np.float32(op.quant.scale[0]), **rounding_constants(site, op.quant)}
    spec = UnarySpec("quantize", out.shape, x.strides, out.strides)
    site.call(spec, node.where, {"x": x, "out": out}, constants)


@lowers(Dequantize)
def lower_dequantize(site: PlanBuilder, node: Node) -> None:
    """A quantized activation, or bytes of a user, as float32."""
    type, quant = node.inputs[0].type, quant_of(node.inputs[0].type)
    if type.dtype not in (DType.I8, DType.U8) or quant.axis is not None:
        site.refuse(node, "only per-tensor bytes have kernels")
        site.allocate(node.output)
        return
    zero = quant.zero_point[0] - (128 if type.dtype is DType.U8 else 0)
    constants: dict[str, npt.ArrayLike] = {"x_zero_point": site.stored(zero), "scale": np.float32(quant.scale[0])}
    unary(site, node, "dequantize", constants, _signed(site, node) if type.dtype is DType.U8 else None)


def _signed(site: PlanBuilder, node: Node) -> View:
    """Unsigned bytes as the level stores signed ones that are 128 less: the same bytes, or the sign bit flipped."""
    view = replace(site.view(node.inputs[0]), dtype="act")
    if site.isa.act_offset:
        return view
    flipped = site.scratch_view(view.shape, "act", view.order())
    site.call(UnarySpec("flip", view.shape, view.strides, flipped.strides), node.where, {"x": view, "out": flipped})
    return flipped
