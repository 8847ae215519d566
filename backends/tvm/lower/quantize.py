"""quantize and dequantize: the edges of the integer network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ....ir.graph import Node, Value
from ....ir.ops.integer import quant_of
from ....ir.ops.norm import LayerNorm
from ....ir.ops.quantize import Dequantize, Quantize
from ....ir.types import DType, TensorType
from ...bundle.program import Place
from ...plan.builder import PlanBuilder, channels_last_order
from ...plan.views import View
from ..kernels.unary import UnarySpec
from .elementwise import unary
from .registry import lowers
from .weighted import rounding_constants

IMAGE_RANK = 4


@lowers(Quantize)
def lower_quantize(site: PlanBuilder, node: Node) -> None:
    """A user's images become channels-last, which is what their readers want; other values nest as they did."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, Quantize)
    if not _has_kernel(op):
        site.refuse(node, "only per-tensor int8 activations have kernels")
        site.allocate(node.output)
        return
    image = x.rank == IMAGE_RANK and x.storage.place is Place.INPUT
    out = site.allocate(node.output, channels_last_order(x.rank) if image else x.order())
    spec = UnarySpec("quantize", out.shape, x.strides, out.strides)
    if spec.loops.scalar and not spec.interleaved:
        nested = site.scratch_view(x.shape, "act", x.order())
        spec = UnarySpec("quantize", x.shape, x.strides, nested.strides)
        site.call(spec, node.where, {"x": x, "out": nested}, quantizing(site, node))
        site.copy(nested, out, node.where)
        return
    site.call(spec, node.where, {"x": x, "out": out}, quantizing(site, node))


def _has_kernel(op: Quantize) -> bool:
    return op.dtype is DType.I8 and op.quant.axis is None


def quantizing(site: PlanBuilder, node: Node) -> dict[str, npt.ArrayLike]:
    """The constants of a quantize: its scale, and the range of its bytes."""
    assert isinstance(node.op, Quantize)
    return {"scale": np.float32(node.op.quant.scale[0]), **rounding_constants(site, node.op.quant)}


def sole_quantize(site: PlanBuilder, value: Value) -> Node | None:
    """The quantize that alone reads a float value, so that its producer may write bytes."""
    if site.graph.is_output(value) or len(value.uses) != 1:
        return None
    reader = value.users[0]
    return reader if isinstance(reader.op, Quantize) and _has_kernel(reader.op) else None


@lowers(Dequantize)
def lower_dequantize(site: PlanBuilder, node: Node) -> None:
    """A quantized activation, or bytes of a user, as float32; nothing where layer norms alone read it, for they can."""
    type, quant = node.inputs[0].type, quant_of(node.inputs[0].type)
    if type.dtype not in (DType.I8, DType.U8) or quant.axis is not None:
        site.refuse(node, "only per-tensor bytes have kernels")
        site.allocate(node.output)
        return
    if type.dtype is DType.I8 and _is_left_to_readers(site, node.output):
        return
    constants = dequantizing(site, type)
    constants["x_zero_point"] = constants.pop("zero_point")
    unary(site, node, "dequantize", constants, _signed(site, node) if type.dtype is DType.U8 else None)


def _is_left_to_readers(site: PlanBuilder, real: Value) -> bool:
    """Whether layer norms alone read what a dequantize makes: their kernel takes bytes."""
    readers = [isinstance(node.op, LayerNorm) and position == 0 for node, position in real.uses]
    return bool(readers) and all(readers) and not site.graph.is_output(real)


def dequantizing(site: PlanBuilder, type: TensorType) -> dict[str, npt.ArrayLike]:
    """The constants of a dequantize: the zero point as it is stored, and the scale."""
    quant = quant_of(type)
    zero = quant.zero_point[0] - (128 if type.dtype is DType.U8 else 0)
    return {"zero_point": site.stored(zero), "scale": np.float32(quant.scale[0])}


def bytes_behind(value: Value) -> Value:
    """What a dequantize reads that left its result to its readers."""
    assert value.producer is not None
    assert isinstance(value.producer.op, Dequantize)
    return value.producer.inputs[0]


def _signed(site: PlanBuilder, node: Node) -> View:
    """Unsigned bytes as the level stores signed ones that are 128 less: the same bytes, or the sign bit flipped."""
    view = replace(site.view(node.inputs[0]), dtype="act")
    if site.isa.act_offset:
        return view
    flipped = site.scratch_view(view.shape, "act", view.order())
    site.call(UnarySpec("flip", view.shape, view.strides, flipped.strides), node.where, {"x": view, "out": flipped})
    return flipped
