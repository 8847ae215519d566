"""QOperator models: each integer operator is dequantize, the float op, quantize, as in a QDQ model."""

from __future__ import annotations

import numpy as np

from ...constants import Tensor
from ...op import Op
from ...ops.elementwise import Add, LeakyRelu, Mul, Sigmoid
from ...ops.matmul import Linear
from ...ops.norm import Softmax
from ...ops.pool import AvgPool
from ...ops.quantize import Quantize
from ...ops.reduce import ReduceMean
from ...ops.shape import Concat
from ...types import QuantParams, normalize_axis, per_channel, per_tensor
from .context import Context
from .conv import conv_op
from .errors import Refusal
from .linear import product, scaled
from .moves import transpose
from .operand import Operand, StoredConstant
from .pool import spatial_axes, window
from .quant import dequantize, parameters
from .registry import translate

MICROSOFT = "com.microsoft"


def real(c: Context, index: int, axis: int = 0) -> Operand:
    """What the integers of operand ``index`` mean; its scale and zero point follow it."""
    x = c.value(index)
    return dequantize(c, x, parameters(c, index + 1, index + 2, x.type.rank, axis))


def stored(c: Context, y: Operand, scale: int, zero: int) -> Operand:
    """``y`` as integers by operands ``scale`` and ``zero``."""
    dtype = c.type(zero).dtype if c.has(zero) else c.type(0).dtype
    return c.emit(Quantize(dtype, parameters(c, scale, zero, y.type.rank, 1)), y)


def stored_bias(c: Context, index: int, x: int, weight: int) -> Operand:
    """An i32 bias, whose scale is that of the products it is added to."""
    bias = c.value(index)
    first = float(c.constant(x + 1).reshape(-1)[0])
    scales = np.asarray(c.constant(weight + 1).reshape(-1), np.float32) * np.float32(first)
    quant = per_tensor(float(scales[0])) if scales.size == 1 else per_channel(scales.tolist(), None, 0)
    return dequantize(c, bias, quant)


@translate("QLinearConv")
def qlinear_conv(c: Context) -> Operand:
    """x, its scale and zero point, the weight and its own, the output's, and an i32 bias."""
    x, weight = real(c, 0), real(c, 3)
    return stored(c, _convolved(c, x, weight), 6, 7)


def _convolved(c: Context, x: Operand, weight: Operand) -> Operand:
    bias = [stored_bias(c, 8, 0, 3)] if c.has(8) else []
    return c.emit(conv_op(c, x, weight), x, weight, *bias)


@translate("QLinearConv", domain=MICROSOFT)
def qlinear_conv_microsoft(c: Context) -> Operand:
    """With ``channels_last``, transposed around the convolution."""
    x, weight = real(c, 0), real(c, 3)
    if not c.integer("channels_last", 0):
        return stored(c, _convolved(c, x, weight), 6, 7)
    y = _convolved(c, transpose(c, x, _channels_second(x.type.rank)), weight)
    return stored(c, transpose(c, y, _channels_last(y.type.rank)), 6, 7)


def _channels_second(rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1))


def _channels_last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


@translate("QLinearMatMul")
def qlinear_matmul(c: Context) -> Operand:
    """Scales of b may differ for each column."""
    axis = c.type(3).rank - 1
    return stored(c, product(c, real(c, 0), real(c, 3, axis)), 6, 7)


@translate("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(c: Context) -> Operand:
    """Each operand with its own parameters."""
    op: Op = Add() if c.op_type == "QLinearAdd" else Mul()
    return stored(c, c.emit(op, real(c, 0), real(c, 3)), 6, 7)


@translate("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", domain=MICROSOFT)
def qlinear_unary(c: Context) -> Operand:
    """A function of one element, or a softmax."""
    x = real(c, 0)
    match c.op_type:
        case "QLinearSigmoid":
            y = c.emit(Sigmoid(), x)
        case "QLinearLeakyRelu":
            y = c.emit(LeakyRelu(c.real("alpha", 0.01)), x)
        case _:
            y = c.emit(Softmax(normalize_axis(c.integer("axis", -1), x.type.rank)), x)
    return stored(c, y, 3, 4)


@translate("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(c: Context) -> Operand:
    """Space is axes 2 and on, or 1 to the last but one with ``channels_last``."""
    rank = c.type(0).rank
    axes = tuple(range(1, rank - 1)) if c.integer("channels_last", 0) else spatial_axes(c)
    return stored(c, c.emit(ReduceMean(axes, keep=True), real(c, 0)), 3, 4)


@translate("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(c: Context) -> Operand:
    """Channels second."""
    if c.integer("channels_last", 0):
        raise Refusal("channels_last")
    pool, over = window(c)
    counted = bool(c.integer("count_include_pad", 0))
    op = AvgPool(pool.kernel, pool.stride, pool.padding, pool.dilation, counted, over)
    return stored(c, c.emit(op, real(c, 0)), 3, 4)


@translate("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(c: Context) -> Operand:
    """The output's parameters come first, then each part with its own."""
    parts = [real(c, i) for i in range(2, len(c.operands), 3)]
    y = c.emit(Concat(normalize_axis(c.integer("axis"), parts[0].type.rank)), *parts)
    return c.emit(Quantize(c.type(2).dtype, parameters(c, 0, 1, y.type.rank, 1)), y)


@translate("QGemm", domain=MICROSOFT)
def qgemm(c: Context) -> Operand:
    """Alpha * A B + C; without an output scale the result stays float."""
    a, b = real(c, 0), real(c, 3, 0 if c.integer("transB", 0) else 1)
    a = transpose(c, a, (1, 0)) if c.integer("transA", 0) else a
    weight = b if c.integer("transB", 0) else transpose(c, b, (1, 0))
    weight, alpha = scaled(c, weight, c.real("alpha", 1.0)), c.real("alpha", 1.0)
    operands = [a, weight]
    if c.has(6):
        operands.append(scaled(c, _flat(c, stored_bias(c, 6, 0, 3)), alpha))
    y = c.emit(Linear(), *operands)
    return stored(c, y, 7, 8) if c.has(7) else y


def _flat(c: Context, bias: Operand) -> Operand:
    if isinstance(bias, StoredConstant) and bias.type.rank == 2:
        quant: QuantParams = bias.quant
        return StoredConstant(Tensor.of(bias.data.numpy().reshape(-1)), quant)
    return bias
