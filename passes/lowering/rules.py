"""One rule per op: from a float node whose activations lie on grids to the integer node that replaces it.

A rule returns the value that stands for the node's output: int8 with parameters, or float32 where the output stays
float. It returns None where the node must stay float after all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
import torch

from ...ir.constants import Tensor
from ...ir.graph import Node, Value
from ...ir.interpreter import to_numpy
from ...ir.op import Op, Quantization, all_ops
from ...ir.ops.cast import Identity
from ...ir.ops.constant import Constant
from ...ir.ops.conv import Conv, ConvTranspose
from ...ir.ops.elementwise import Add, Clamp, Mul, Sub, Unary
from ...ir.ops.integer import (
    QAdd,
    QAvgPool,
    QConv,
    QConvTranspose,
    QLayerNorm,
    QLinear,
    QMatMul,
    QMul,
    QReduceMean,
    QResize,
    QSoftmax,
    QSub,
    QTable,
    Requantize,
    quant_of,
)
from ...ir.ops.matmul import Linear, MatMul
from ...ir.ops.norm import LayerNorm, Softmax
from ...ir.ops.pool import AvgPool, MaxPool
from ...ir.ops.quantize import Dequantize
from ...ir.ops.reduce import ReduceMean
from ...ir.ops.resize import Resize
from ...ir.ops.shape import Concat, Expand, Gather, Pad, Reshape, Slice, Transpose
from ...ir.types import QuantParams

__all__ = ["RULES", "Requantize", "Rule", "Site"]


class Site(Protocol):
    """What a rule may ask and do."""

    def twin(self, value: Value) -> Value | None:
        """The int8 value behind a float one."""

    def insert(self, node: Node, op: Op, inputs: list[Value]) -> Value:
        """A new node in the place of ``node``."""
        ...

    def constant(self, node: Node, array: np.ndarray, name: str) -> Value:
        """A new constant before ``node``."""
        ...

    def out_grid(self, node: Node) -> QuantParams | None:
        """The grid the output should have; None for float."""


Rule = Callable[[Site, Node], Value | None]
RULES: dict[type[Op], Rule] = {}
RuleFunction = TypeVar("RuleFunction", bound=Rule)


def lowers(*ops: type[Op]) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for ops."""

    def register(rule: RuleFunction) -> RuleFunction:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


def stored_clamp(clamp: tuple[float, float] | None, out: QuantParams | None) -> tuple[float, float] | None:
    """Real bounds of a fused activation as stored values of ``out``; unchanged for float output."""
    if clamp is None or out is None:
        return clamp
    scale, zero = float(out.scale[0]), out.zero_point[0]
    low, high = (float(np.clip(np.rint(np.clip(b / scale, -512, 512)) + zero, -128, 127)) for b in clamp)
    return (low, high)


# Weighted ----------------------------------------------------------------------------------------------------------


def _weighted_operands(site: Site, node: Node) -> list[Value] | None:
    """x, weight, int32 bias and residual, or None when the weight is on no grid."""
    x, weight = site.twin(node.inputs[0]), site.twin(node.inputs[1])
    if x is None or weight is None:
        return None
    operands = [x, weight]
    if len(node.inputs) > 2:
        bias = _integer_bias(node.inputs[2], quant_of(x.type), quant_of(weight.type))
        if bias is None:
            return None
        operands.append(site.constant(node, bias, f"{node.inputs[2].name}.q"))
    if len(node.inputs) > 3:
        residual = site.twin(node.inputs[3])
        if residual is None:
            return None
        operands.append(residual)
    return operands


def _integer_bias(bias: Value, x: QuantParams, weight: QuantParams) -> np.ndarray | None:
    """The bias in units of the accumulator, int32; an imported integer bias on that grid is kept as it is."""
    unit = weight.scale_array().astype(np.float64) * float(x.scale[0])
    if isinstance(bias.op, Dequantize) and bias.producer is not None:
        stored = bias.producer.inputs[0]
        if not isinstance(stored.op, Constant):
            return None
        imported = quant_of(stored.type).scale_array().astype(np.float64)
        if np.allclose(imported, unit, rtol=1e-6, atol=0.0):
            return stored.op.data.numpy().astype(np.int32)
        zero = quant_of(stored.type).zero_point_array()
        real = (stored.op.data.numpy().astype(np.float64) - zero) * imported
    elif isinstance(bias.op, Constant):
        real = bias.op.data.numpy().astype(np.float64)
    else:
        return None
    grid = np.rint(real / unit)
    return grid.astype(np.int32) if np.abs(grid).max(initial=0.0) < 2.0**31 else None


def _insert_weighted(site: Site, node: Node, op: QConv | QConvTranspose | QLinear, operands: list[Value]) -> Value:
    """The integer op; where its result is float, what was fused behind it is computed in float after it."""
    if op.out is not None or (op.clamp is None and len(operands) < 4):
        return site.insert(node, op, operands)
    y = site.insert(node, replace(op, clamp=None), operands[:3])
    if len(operands) > 3:
        y = site.insert(node, Add(), [y, site.insert(node, Dequantize(), [operands[3]])])
    return y if op.clamp is None else site.insert(node, Clamp(*op.clamp), [y])


@lowers(Conv)
def lower_conv(site: Site, node: Node) -> Value | None:
    """Rewrite: conv -> qconv."""
    op, operands, out = node.op, _weighted_operands(site, node), site.out_grid(node)
    assert isinstance(op, Conv)
    if operands is None:
        return None
    clamp = stored_clamp(op.clamp, out)
    return _insert_weighted(site, node, QConv(op.stride, op.padding, op.dilation, op.groups, clamp, out), operands)


@lowers(ConvTranspose)
def lower_conv_transpose(site: Site, node: Node) -> Value | None:
    """Rewrite: conv_transpose -> qconv_transpose."""
    op, operands, out = node.op, _weighted_operands(site, node), site.out_grid(node)
    assert isinstance(op, ConvTranspose)
    if operands is None:
        return None
    clamp = stored_clamp(op.clamp, out)
    lowered = QConvTranspose(op.stride, op.padding, op.output_padding, op.dilation, op.groups, clamp, out)
    return _insert_weighted(site, node, lowered, operands)


@lowers(Linear)
def lower_linear(site: Site, node: Node) -> Value | None:
    """Rewrite: linear -> qlinear."""
    op, operands, out = node.op, _weighted_operands(site, node), site.out_grid(node)
    assert isinstance(op, Linear)
    if operands is None:
        return None
    return _insert_weighted(site, node, QLinear(stored_clamp(op.clamp, out), out), operands)


# Activations only --------------------------------------------------------------------------------------------------


def _twins(site: Site, node: Node) -> list[Value] | None:
    """The twins of all operands, or None when one has none."""
    found = [t for v in node.inputs if (t := site.twin(v)) is not None]
    return found if len(found) == len(node.inputs) else None


@lowers(MatMul)
def lower_matmul(site: Site, node: Node) -> Value | None:
    """Rewrite: matmul -> qmatmul."""
    operands = _twins(site, node)
    return site.insert(node, QMatMul(site.out_grid(node)), operands) if operands else None


@lowers(Add, Sub, Mul)
def lower_binary(site: Site, node: Node) -> Value | None:
    """Rewrite: add, sub, mul -> qadd, qsub, qmul."""
    operands, out = _twins(site, node), site.out_grid(node)
    if operands is None:
        return None
    match node.op:
        case Add(clamp=clamp):
            return site.insert(node, QAdd(stored_clamp(clamp, out), out), operands)
        case Mul(clamp=clamp):
            return site.insert(node, QMul(stored_clamp(clamp, out), out), operands)
        case _:
            return site.insert(node, QSub(None, out), operands)


def lower_unary(site: Site, node: Node) -> Value | None:
    """A function of one element -> qtable, computed in float64 from the 256 values the input can take."""
    x, out = site.twin(node.inputs[0]), site.out_grid(node)
    if x is None:
        return None
    quant = quant_of(x.type)
    reals = (np.arange(-128, 128) - quant.zero_point[0]) * float(quant.scale[0])
    function = node.op.run(torch.from_numpy(reals))
    assert isinstance(function, torch.Tensor)
    images = to_numpy(function)
    if out is None:
        table = images.astype(np.float32)
    else:
        zero = out.zero_point[0]
        grid = np.rint(np.clip(images / float(out.scale[0]), -128 - zero, 127 - zero))
        table = (np.nan_to_num(grid, nan=0.0) + zero).astype(np.int8)
    return site.insert(node, QTable(Tensor.of(table), out), [x])


@lowers(AvgPool)
def lower_avg_pool(site: Site, node: Node) -> Value | None:
    """Rewrite: avg_pool -> qavg_pool."""
    op, operands = node.op, _twins(site, node)
    assert isinstance(op, AvgPool)
    if operands is None or any(d != 1 for d in op.dilation):
        return None
    lowered = QAvgPool(op.kernel, op.stride, op.padding, op.count_padding, op.overhang, site.out_grid(node))
    return site.insert(node, lowered, operands)


@lowers(ReduceMean)
def lower_reduce_mean(site: Site, node: Node) -> Value | None:
    """Rewrite: reduce_mean -> qreduce_mean."""
    op, operands = node.op, _twins(site, node)
    assert isinstance(op, ReduceMean)
    return site.insert(node, QReduceMean(op.axes, op.keep, site.out_grid(node)), operands) if operands else None


@lowers(Resize)
def lower_resize(site: Site, node: Node) -> Value | None:
    """Nearest moves elements; linear -> qresize."""
    op, operands = node.op, _twins(site, node)
    assert isinstance(op, Resize)
    if operands is None:
        return None
    if op.mode == "nearest":
        return site.insert(node, op, operands)
    return site.insert(node, QResize(op.size, op.scale, op.offset, site.out_grid(node)), operands)


@lowers(Softmax)
def lower_softmax(site: Site, node: Node) -> Value | None:
    """Rewrite: softmax -> qsoftmax with its table of exponentials."""
    op, operands = node.op, _twins(site, node)
    assert isinstance(op, Softmax)
    if operands is None:
        return None
    x = operands[0].type
    axis = op.axis % x.rank
    length = x.shape[axis]
    if not isinstance(length, int):
        return None
    table = QSoftmax.table(quant_of(x).scale[0], length)
    return site.insert(node, QSoftmax(axis, table, site.out_grid(node)), operands)


@lowers(LayerNorm)
def lower_layer_norm(site: Site, node: Node) -> Value | None:
    """Rewrite: layer_norm -> qlayer_norm with scale and bias in units of the output."""
    op, x, out = node.op, site.twin(node.inputs[0]), site.out_grid(node)
    assert isinstance(op, LayerNorm)
    if x is None:
        return None
    shape = [size for size in x.type.shape[x.type.rank - op.rank :] if isinstance(size, int)]
    if len(shape) < op.rank:
        return None
    affine = [v.op.data.numpy().astype(np.float64) for v in node.inputs[1:] if isinstance(v.op, Constant)]
    unit = 1.0 if out is None else float(out.scale[0])
    gain = affine[0] if affine else np.ones(shape)
    shift = affine[1] if len(affine) > 1 else np.zeros(shape)
    packed = [Tensor.of((part / unit).astype(np.float32)) for part in (gain, shift)]
    return site.insert(node, QLayerNorm(op.rank, op.epsilon, packed[0], packed[1], out), [x])


# Ops that move elements --------------------------------------------------------------------------------------------


@lowers(Reshape, Transpose, Slice, Expand, MaxPool, Identity, Gather)
def lower_movement(site: Site, node: Node) -> Value | None:
    """The same op on the int8 twin; further operands (indices) stay as they are."""
    x = site.twin(node.inputs[0])
    return x and site.insert(node, node.op, [x, *node.inputs[1:]])


@lowers(Pad)
def lower_pad(site: Site, node: Node) -> Value | None:
    """A pad whose fill is a stored value."""
    op, x = node.op, site.twin(node.inputs[0])
    assert isinstance(op, Pad)
    if x is None:
        return None
    quant = quant_of(x.type)
    fill = float(np.clip(np.rint(op.value / float(quant.scale[0])) + quant.zero_point[0], -128, 127))
    return site.insert(node, Pad(op.padding, fill, op.mode), [x])


@lowers(Concat)
def lower_concat(site: Site, node: Node) -> Value | None:
    """A concat of parts that ``quantize`` put on one grid."""
    operands = _twins(site, node)
    if operands is None or len({t.type.quant for t in operands}) > 1:
        return None
    return site.insert(node, node.op, operands)


for _op in all_ops():
    if issubclass(_op, Unary) and _op.quantization is Quantization.TABLE:
        RULES.setdefault(_op, lower_unary)
