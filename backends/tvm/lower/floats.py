"""Float islands: convolutions, products, reductions and normalizations that stay in float32.

Their kernels work in an order that neither vector width nor threads change, so that a bundle answers with the same
bytes on every target; the interpreter, which runs these ops in torch, is met within a tolerance.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Literal

import numpy as np

from ....ir.graph import Node
from ....ir.ops.constant import Constant
from ....ir.ops.conv import Conv, ConvTranspose
from ....ir.ops.matmul import Linear, MatMul
from ....ir.ops.norm import BatchNorm, LogSoftmax, Softmax
from ....ir.ops.pool import AvgPool
from ....ir.ops.reduce import ArgMax, ArgMin, ReduceLogSumExp, ReduceMax, ReduceMean, ReduceMin, ReduceSum, Reduction
from ....ir.types import DType, TensorType
from ...plan.builder import Array, Constants, PlanBuilder, channels_last_order
from ...plan.moves import Border
from ...plan.views import View
from ..kernels.argmax import ArgMaxSpec
from ..kernels.float_conv import FloatConvSpec, FloatMatmulSpec
from ..kernels.float_reduce import FloatReduceSpec, ReduceOp
from ..kernels.pool import FloatAvgPoolSpec
from .chains import Chain, Term, run_chain
from .pool import window_of
from .registry import lowers
from .scan import lower_scanned_reduction
from .weighted import batched, image_axes, strided_view, transposed_axes, transposed_conv, two_axes

REDUCTIONS: dict[type[Reduction], ReduceOp] = {
    ReduceSum: "sum",
    ReduceMean: "mean",
    ReduceMax: "max",
    ReduceMin: "min",
}


IMAGE_RANK = 4


def is_float(site: PlanBuilder, node: Node) -> bool:
    """Whether operands and results are float32; refuses the node otherwise."""
    if all(v.type.dtype is DType.F32 for v in (*node.inputs, *node.outputs)):
        return True
    site.refuse(node, f"no kernel for elements of {node.inputs[0].type.dtype.value}")
    return False


def _constant_operand(site: PlanBuilder, node: Node, position: int) -> Array | None:
    """A constant operand; refuses the node when it is computed at run time."""
    op = node.inputs[position].op
    if isinstance(op, Constant):
        return op.data.numpy()
    site.refuse(node, "the weight is computed at run time")
    return None


# Products ----------------------------------------------------------------------------------------------------------


def float_conv_border(site: PlanBuilder, node: Node) -> Border | None:
    """Padding is 0."""
    assert isinstance(node.op, Conv | AvgPool)
    return Border(node.op.padding, 0.0)


@lowers(Conv, border=float_conv_border)
def lower_conv(site: PlanBuilder, node: Node) -> None:
    """Fused multiply-adds in the order kernel row, kernel column, input channel."""
    op = node.op
    assert isinstance(op, Conv)
    weight = _constant_operand(site, node, 1) if is_float(site, node) else None
    if weight is None or len(op.stride) > 2:
        site.refuse(node, f"no float kernel for {len(op.stride)}-d convolutions of this kind")
        return
    source = site.padded(node.inputs[0], Border(op.padding, 0.0))
    out = site.allocate(node.output, channels_last_order(source.rank))
    batch, channels, height, width = image_axes(out).shape
    residual = site.channels_last(site.view(node.inputs[3])) if len(node.inputs) > 3 else None
    kernel, stride, dilation = (two_axes(part) for part in (weight.shape[2:], op.stride, op.dilation))
    spec = FloatConvSpec(
        batch=batch,
        out_h=height,
        out_w=width,
        in_channels=weight.shape[1],
        out_channels=channels // op.groups,
        input=strided_view(image_axes(source)),
        output=strided_view(image_axes(out)),
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=stride[0],
        stride_w=stride[1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        groups=op.groups,
        residual=None if residual is None else strided_view(image_axes(residual)),
    )
    constants = {"weight": weight.reshape(*weight.shape[:2], *kernel), **_tail(site, node, op.clamp)}
    views = {"x": source, "out": out} if residual is None else {"x": source, "out": out, "residual": residual}
    site.call(spec, node.where, views, constants)


def float_transposed_border(site: PlanBuilder, node: Node) -> Border | None:
    """What the phases of a transposed convolution read around the image."""
    rank = node.inputs[0].type.rank
    return Border(tuple(axis.border for axis in transposed_axes(node))[4 - rank :], 0.0)


@lowers(ConvTranspose, border=float_transposed_border)
def lower_conv_transpose(site: PlanBuilder, node: Node) -> None:
    """One ordinary convolution for each position within a stride."""
    op = node.op
    assert isinstance(op, ConvTranspose)
    weight = _constant_operand(site, node, 1) if is_float(site, node) else None
    if weight is None or len(op.stride) > 2:
        site.refuse(node, f"no float kernel for {len(op.stride)}-d transposed convolutions of this kind")
        return
    border = float_transposed_border(site, node)
    assert border is not None
    source = site.padded(node.inputs[0], border)
    out = site.allocate(node.output, channels_last_order(source.rank))
    whole = transposed_conv(node, source, out)
    kernels = weight if weight.ndim == IMAGE_RANK else weight[:, :, None]
    for phase in whole.phases:
        shared = {f.name: getattr(phase.spec, f.name) for f in fields(FloatConvSpec) if f.name != "residual"}
        constants = phase.constants({"weight": kernels, **_tail(site, node, op.clamp)})
        site.call(FloatConvSpec(**shared), node.where, {"x": source, "out": out}, constants)


def _tail(site: PlanBuilder, node: Node, clamp: tuple[float, float] | None) -> Constants:
    """Bias and bounds of a float product."""
    bias = node.inputs[2].op if len(node.inputs) > 2 else None
    constants = {"bias": bias.data.numpy()} if isinstance(bias, Constant) else {}
    return constants if clamp is None else {**constants, "lo": np.float32(clamp[0]), "hi": np.float32(clamp[1])}


@lowers(Linear)
def lower_linear(site: PlanBuilder, node: Node) -> None:
    """One product over all leading axes; a residual is added by a chain."""
    op = node.op
    assert isinstance(op, Linear)
    weight = _constant_operand(site, node, 1) if is_float(site, node) else None
    if weight is None:
        return
    out = site.allocate(node.output)
    x = site.contiguous(site.view(node.inputs[0]))
    rows = math.prod(x.shape[:-1])
    target = out if out.is_dense() and len(node.inputs) < 4 else site.scratch_view(out.shape, "float32")
    constants = _tail(site, node, op.clamp if len(node.inputs) < 4 else None)
    spec = FloatConvSpec.linear(rows, weight.shape[1], weight.shape[0])
    site.call(spec, node.where, {"x": x, "out": target}, {"weight": weight[:, :, None, None], **constants})
    if len(node.inputs) > 3:
        views = [target, site.view(node.inputs[3])]
        run_chain(site, node.where, views, out, lambda c, a, b: c.clamp(c("add", a, b), op.clamp))
    elif target is not out:
        site.copy(target, out, node.where)


@lowers(MatMul)
def lower_matmul(site: PlanBuilder, node: Node) -> None:
    """Batched products of two activations with contiguous rows."""
    if not is_float(site, node):
        return
    out = site.allocate(node.output)
    shape = node.output.type.static_shape
    a, b = (site.contiguous(batched(site.view(value), shape)) for value in node.inputs)
    target = out if out.is_dense() else site.scratch_view(out.shape, "float32")
    spec = FloatMatmulSpec(math.prod(shape[:-2]), shape[-2], a.shape[-1], shape[-1])
    site.call(spec, node.where, {"x": a, "y": b, "out": target})
    if target is not out:
        site.copy(target, out, node.where)


# Reductions --------------------------------------------------------------------------------------------------------


def _reduce(
    site: PlanBuilder, op: ReduceOp, x: View, axes: tuple[int, ...], label: str, out: View | None = None
) -> View:
    """Reduce over ``axes``, which stay as size 1, into ``out`` or a new buffer that nests its axes as ``x`` does."""
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    if out is None:
        out = site.scratch_view(shape, "float32", x.order())
    kept = tuple(stride for axis, stride in enumerate(out.strides) if axis not in axes)
    site.call(FloatReduceSpec(op, x.shape, axes, x.strides, kept), label, {"x": x, "out": out})
    return out


@lowers(*REDUCTIONS)
def lower_reduction(site: PlanBuilder, node: Node) -> None:
    """Sums in a fixed order, means and extremes; integers are reduced one axis after the other."""
    op = node.op
    assert isinstance(op, Reduction)
    if node.inputs[0].type.dtype is not DType.F32:
        lower_scanned_reduction(site, node)
        return
    x = site.view(node.inputs[0])
    axes = tuple(sorted(axis % x.rank for axis in op.axes))
    order = x.order() if op.keep else None
    out = site.allocate(node.output, order)
    if not axes:
        site.copy(x, out, node.where)
        return
    kept = [stride for axis, stride in enumerate(out.strides) if axis not in axes] if op.keep else list(out.strides)
    site.call(
        FloatReduceSpec(REDUCTIONS[type(op)], x.shape, axes, x.strides, tuple(kept)),
        node.where,
        {"x": x, "out": out},
    )


@lowers(Softmax, LogSoftmax)
def lower_softmax(site: PlanBuilder, node: Node) -> None:
    """Largest element, exponentials, their sum, and a division (or the logarithm of the sum)."""
    op = node.op
    assert isinstance(op, Softmax | LogSoftmax)
    if not is_float(site, node):
        return
    x, where = site.view(node.inputs[0]), node.where
    axes = (op.axis % x.rank,)
    largest = _reduce(site, "max", x, axes, where)
    powers = site.scratch_view(x.shape, "float32", x.order())
    run_chain(site, where, [x, largest], powers, lambda c, a, m: c("exp", c("sub", a, m)))
    total = _reduce(site, "sum", powers, axes, where)
    out = site.allocate(node.output, x.order())
    if isinstance(op, Softmax):
        run_chain(site, where, [powers, total], out, lambda c, e, s: c("div", e, s))
    else:
        run_chain(site, where, [x, largest, total], out, lambda c, a, m, s: c("sub", c("sub", a, m), c("log", s)))


@lowers(ReduceLogSumExp)
def lower_log_sum_exp(site: PlanBuilder, node: Node) -> None:
    """The logarithm of the sum of exponentials below the largest element, which is added again."""
    op = node.op
    assert isinstance(op, ReduceLogSumExp)
    if not is_float(site, node):
        return
    x, where = site.view(node.inputs[0]), node.where
    axes = tuple(sorted(axis % x.rank for axis in op.axes))
    if not axes:
        site.bind(node.output, x)
        return

    def finite(c: Chain, m: Term) -> Term:
        """An infinite extreme is not subtracted: from itself it leaves no number."""
        return c("where", c("equal", c("abs", m), math.inf), 0.0, m)

    largest = _reduce(site, "max", x, axes, where)
    powers = site.scratch_view(x.shape, "float32", x.order())
    run_chain(site, where, [x, largest], powers, lambda c, a, m: c("exp", c("sub", a, finite(c, m))))
    total = _reduce(site, "sum", powers, axes, where)
    result = site.scratch_view(total.shape, "float32", total.order())
    run_chain(site, where, [largest, total], result, lambda c, m, s: c("add", c("log", s), finite(c, m)))
    shaped = result.reshaped(node.output.type.static_shape) or site.contiguous(result).reshaped(
        node.output.type.static_shape
    )
    assert shaped is not None
    site.bind(node.output, shaped)


@lowers(BatchNorm)
def lower_batch_norm(site: PlanBuilder, node: Node) -> None:
    """One factor and one shift per channel, computed at compile time."""
    op = node.op
    assert isinstance(op, BatchNorm)
    parts = [_constant_operand(site, node, position) for position in range(1, 5)]
    if not is_float(site, node) or any(part is None for part in parts):
        return
    x = site.view(node.inputs[0])
    out = site.allocate(node.output, x.order())
    scale, bias, mean, variance = (np.asarray(part, np.float64) for part in parts)
    factor = scale / np.sqrt(variance + op.epsilon)
    views = [_per_channel(site, values, x.rank) for values in (factor, bias - mean * factor)]
    run_chain(site, node.where, [x, *views], out, lambda c, a, f, s: c("add", c("mul", a, f), s))


def _per_channel(site: PlanBuilder, values: Array, rank: int) -> View:
    """Constants along axis 1, ready to broadcast against a tensor of that rank."""
    array = values.astype(np.float32).reshape(1, -1, *[1] * (rank - 2))
    return site.constant(array, TensorType(DType.F32, array.shape))


@lowers(AvgPool, border=float_conv_border)
def lower_avg_pool(site: PlanBuilder, node: Node) -> None:
    """The sum of each window over the count for its place."""
    op = node.op
    assert isinstance(op, AvgPool)
    if not is_float(site, node):
        return
    out = site.allocate(node.output, channels_last_order(node.output.type.rank))
    if len(op.kernel) > 2:
        site.refuse(node, f"no kernel for {len(op.kernel)}-d windows")
        return
    source = site.padded(node.inputs[0], Border(op.padding, 0.0))
    window = window_of(out, op.kernel, op.stride, op.dilation)
    spec = FloatAvgPoolSpec(window, strided_view(image_axes(source)), strided_view(image_axes(out)))
    counts = op.counts(node.inputs[0].type.static_shape[2:]).numpy()
    site.call(spec, node.where, {"x": source, "out": out}, {"counts": counts})


@lowers(ArgMax, ArgMin)
def lower_arg(site: PlanBuilder, node: Node) -> None:
    """The first or last place of an extreme element."""
    op, x = node.op, site.view(node.inputs[0])
    assert isinstance(op, ArgMax | ArgMin)
    out = site.allocate(node.output)
    if x.dtype not in ("float32", "int32", "int64"):
        site.refuse(node, f"no kernel for elements of {x.dtype}")
        return
    dtype: Literal["float32", "int32", "int64"] = x.dtype  # type: ignore[assignment]
    axis = op.axis % x.rank
    strides = tuple(s for a, s in enumerate(out.strides) if a != axis) if op.keep else out.strides
    spec = ArgMaxSpec(x.shape, axis, dtype, isinstance(op, ArgMin), op.last, x.strides, strides)
    site.call(spec, node.where, {"x": x, "out": out})
