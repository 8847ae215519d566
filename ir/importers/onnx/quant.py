"""Quantize and dequantize nodes, with static parameters in the types, and plain integer products."""

from __future__ import annotations

import numpy as np

from ...constants import Tensor
from ...errors import ModelError
from ...graph import Value
from ...ops.cast import Cast
from ...ops.dynamic import AsQuantized, ConvInteger, DequantizeBy, DynamicQuantize, MatMulInteger, QuantizeBy
from ...ops.quantize import Dequantize, Quantize
from ...types import DType, QuantParams, normalize_axis, per_channel, per_tensor
from .attributes import element_type
from .context import Context
from .conv import conv_op
from .errors import Refusal
from .moves import reshape
from .operand import Operand, StoredConstant
from .registry import translate


def is_dynamic(c: Context, *indices: int) -> bool:
    """Whether a scale or zero point is computed while the network runs (an input of the graph can be bound)."""
    given = [operand for i in indices if (operand := c.optional(i)) is not None]
    return any(isinstance(operand, Value) and operand.producer is not None for operand in given)


def parameters(c: Context, scale: int, zero: int, rank: int, axis: int) -> QuantParams:
    """Static parameters from operands ``scale`` and ``zero``: for the whole tensor, or for each index of ``axis``."""
    scales = c.constant(scale, "a quantization scale")
    zeros = c.constant(zero, "a zero point") if c.has(zero) else np.zeros(scales.shape, np.int64)
    if scales.ndim > 1:
        raise Refusal("block quantization (a scale for each block of elements) is not supported")
    if scales.size == 1:
        return per_tensor(float(scales.reshape(-1)[0]), int(zeros.reshape(-1)[0]))
    if zeros.size not in (1, scales.size):
        raise ModelError(f"{scales.size} scales but {zeros.size} zero points", where=c.origin)
    spread = np.broadcast_to(zeros.reshape(-1), scales.shape)
    return per_channel(scales.tolist(), spread.tolist(), normalize_axis(axis, rank))


def dequantize(c: Context, x: Operand, quant: QuantParams) -> Operand:
    """The real numbers that integers mean. Constants stay integers until something computes with them."""
    if isinstance(x, Tensor):
        return StoredConstant(x, quant)
    value = c.graph_value(x)
    if value.type.quant != quant:
        if value.producer is None and value.type.quant is None:
            value.type = value.type.with_quant(quant)
        else:
            return c.emit(Dequantize(), c.emit(AsQuantized(quant), value))
    known = next((node for node in value.users if isinstance(node.op, Dequantize)), None)
    return known.output if known else c.emit(Dequantize(), value)


def _refuse_blocks(c: Context) -> None:
    if c.integer("block_size", 0):
        raise Refusal("block quantization (a scale for each block of elements) is not supported")


def _axis(c: Context, scale: int, rank: int) -> int | None:
    if c.type(scale).rank == 0:
        return None
    return normalize_axis(c.integer("axis", 1), rank)


@translate("QuantizeLinear")
@translate("QuantizeLinear", domain="com.microsoft")
def quantize_linear(c: Context) -> Operand:
    """Static parameters go into the type of the result."""
    _refuse_blocks(c)
    x = c.value(0)
    dtype = element_type(c.integer("output_dtype", 0), c.origin) if c.integer("output_dtype", 0) else DType.U8
    dtype = c.type(2).dtype if c.has(2) else dtype
    if not dtype.is_integer:
        raise Refusal(f"quantization to {dtype.value}")
    if is_dynamic(c, 1, 2):
        zero = c.value(2) if c.has(2) else c.const(np.zeros(c.static_shape(1), dtype.numpy))
        return c.emit(QuantizeBy(_axis(c, 1, x.type.rank)), x, c.value(1), zero)
    return c.emit(Quantize(dtype, parameters(c, 1, 2, x.type.rank, c.integer("axis", 1))), x)


@translate("DequantizeLinear")
@translate("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(c: Context) -> Operand:
    """Static parameters go into the type of the operand."""
    _refuse_blocks(c)
    x = c.value(0)
    if is_dynamic(c, 1, 2):
        zero = c.value(2) if c.has(2) else c.const(np.zeros(c.static_shape(1), x.type.dtype.numpy))
        return c.emit(DequantizeBy(_axis(c, 1, x.type.rank)), x, c.value(1), zero)
    real = dequantize(c, x, parameters(c, 1, 2, x.type.rank, c.integer("axis", 1)))
    code = c.integer("output_dtype", 0)
    wanted = element_type(code, c.origin) if code else c.type(1).dtype
    return real if wanted is DType.F32 else c.emit(Cast(wanted), real)


@translate("DynamicQuantizeLinear")
def dynamic_quantize_linear(c: Context) -> tuple[Operand, ...]:
    """Parameters from the data."""
    return c.emit_all(DynamicQuantize(), c.value(0))


@translate("MatMulInteger")
def matmul_integer(c: Context) -> Operand:
    """Zero points of a are scalars or one per row, those of b scalars or one per column."""
    a_zero, b_zero = (_zero(c, i) for i in (2, 3))
    if a_zero.type.rank == 1 and a_zero.type.shape != (1,):
        a_zero = reshape(c, a_zero, (*a_zero.type.shape, 1))
    return c.emit(MatMulInteger(), c.value(0), c.value(1), a_zero, b_zero)


@translate("ConvInteger")
def conv_integer(c: Context) -> Operand:
    """Sums of products less their zero points."""
    op = conv_op(c, c.value(0), c.value(1))
    integer = ConvInteger(op.stride, op.padding, op.dilation, op.groups)
    return c.emit(integer, c.value(0), c.value(1), _zero(c, 2), _zero(c, 3))


def _zero(c: Context, index: int) -> Operand:
    return c.value(index) if c.has(index) else c.const(np.zeros((), c.type(index - 2).dtype.numpy))
