"""qsoftmax, and layer norms: of bytes to the bit, and of floats between what may be bytes at either end."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ....ir.graph import Node
from ....ir.ops.constant import Constant
from ....ir.ops.integer import QLayerNorm, QSoftmax, multiplier, quant_of
from ....ir.ops.norm import LayerNorm
from ...plan.builder import PlanBuilder
from ...plan.views import View, dense_strides
from ..kernels.float_layer_norm import FloatLayerNormSpec, Kind
from ..kernels.layer_norm import LayerNormSpec
from ..kernels.softmax import SoftmaxSpec
from .chains import Chain, Term, run_chain
from .floats import is_float
from .quantize import bytes_behind, dequantizing, quantizing, sole_quantize
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


@lowers(LayerNorm)
def lower_float_layer_norm(site: PlanBuilder, node: Node) -> None:
    """One kernel that reads the bytes behind a dequantize, and writes those of a quantize."""
    op, value = node.op, node.inputs[0]
    assert isinstance(op, LayerNorm)
    if not is_float(site, node):
        return
    constants: dict[str, npt.ArrayLike] = {"epsilon": np.float32(op.epsilon)}
    if not site.has_view(value) and not isinstance(value.op, Constant):
        value = bytes_behind(value)
        constants |= {f"x_{name}": number for name, number in dequantizing(site, value.type).items()}
    x = site.view(value)
    affine = [operand for operand in node.inputs[1:] if not isinstance(operand.op, Constant)]
    if affine:
        plain = site.scratch_view(x.shape, "float32")
        _normalize(site, node, x, plain, constants)
        out = site.allocate(node.output)
        run_chain(site, node.where, [plain, *map(site.view, node.inputs[1:])], out, _affine)
        return
    named = zip(("gain", "shift"), node.inputs[1:], strict=False)
    constants |= {name: v.op.data.numpy().reshape(-1) for name, v in named if isinstance(v.op, Constant)}
    reader = sole_quantize(site, node.output)
    if reader is not None:
        constants |= {"out_scale" if name == "scale" else name: n for name, n in quantizing(site, reader).items()}
        site.mark_done(reader)
    _normalize(site, node, x, site.allocate(node.output if reader is None else reader.output), constants)


def _affine(c: Chain, x: Term, *affine: Term) -> Term:
    for name, operand in zip(("mul", "add"), affine, strict=False):
        x = c(name, x, operand)
    return x


def _normalize(site: PlanBuilder, node: Node, x: View, out: View, constants: dict[str, npt.ArrayLike]) -> None:
    """Call the kernel on rows of contiguous elements; the result goes through a buffer where its rows have none."""
    assert isinstance(node.op, LayerNorm)
    rank = node.op.rank
    x = x if _has_rows(x, rank) else site.contiguous(x)
    target = out if _has_rows(out, rank) else site.scratch_view(out.shape, out.dtype)
    lead = x.rank - rank
    spec = FloatLayerNormSpec(
        x.shape[:lead],
        math.prod(x.shape[lead:]),
        x.strides[:lead],
        target.strides[:lead],
        _kind(x),
        _kind(target),
        "gain" in constants,
    )
    site.call(spec, node.where, {"x": x, "out": target}, constants)
    if target is not out:
        site.copy(target, out, node.where)


def _kind(view: View) -> Kind:
    return "byte" if view.dtype == "act" else "f32"


def _has_rows(view: View, rank: int) -> bool:
    """Whether the elements of the last axes are contiguous in row-major order."""
    shape = view.shape[view.rank - rank :]
    strides = view.strides[view.rank - rank :]
    return all(n == 1 or a == b for n, a, b in zip(shape, strides, dense_strides(shape, range(rank)), strict=True))
