"""Dynamically quantized models as they are imported become float graphs whose weights keep their grids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.op import Op
from ..ir.ops.cast import Cast
from ..ir.ops.dynamic import ConvInteger, DequantizeBy, DynamicQuantize, MatMulInteger, QuantizeBy
from ..ir.ops.elementwise import Mul
from ..ir.ops.matmul import Linear, MatMul
from ..ir.types import DType, QuantParams, per_channel, per_tensor
from .analysis import array_of, per_channel_array
from .base import Exactness, Pass, PassContext
from .grids import weight_on_grid
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite


@register_pass
@dataclass(frozen=True)
class FoldDynamic(Pass):
    """Turn dynamic quantization into float layers, which calibration then makes static int8.

    A product of integers, converted to float and multiplied by the scales of its operands, is a linear layer or a
    convolution of what was quantized. Its int8 weights keep their grid, so that the freeze stores the same integers.
    Activations are no longer rounded here: their grids come from calibration instead of from each input.
    """

    name: ClassVar[str] = "fold-dynamic"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def apply(self, graph: Graph, context: PassContext) -> bool:
        before = _products(graph)
        changed = rewrite(graph, (product_to_layer, round_trip), context)
        folded = before - _products(graph)
        if folded:
            context.report(f"dynamic quantization became static in {folded} layers")
        return changed


def _products(graph: Graph) -> int:
    return sum(isinstance(node.op, MatMulInteger | ConvInteger) for node in graph.nodes)


@pattern(DequantizeBy)
def round_trip(node: Node, rewriter: Rewriter) -> bool:
    """Quantization by computed parameters, and back by the same -> nothing."""
    stored, *parameters = node.inputs
    match stored.op, stored.producer:
        case DynamicQuantize(), Node(inputs=(x,), outputs=outputs) if outputs == (stored, *parameters):
            return rewriter.replace(node, x)
        case QuantizeBy(axis=axis), Node(inputs=(x, *given)) if given == parameters and node.op == DequantizeBy(axis):
            return rewriter.replace(node, x)
        case _:
            return False


@pattern(Mul)
def product_to_layer(node: Node, rewriter: Rewriter) -> bool:
    """Cast of an integer product times the scales of its operands -> the layer of real numbers."""
    if getattr(node.op, "clamp", None):
        return False
    factors = list(_factors(node.output))
    products = [f for f in factors if _integer_product(f) is not None]
    if len(products) != 1:
        return False
    product = _integer_product(products[0])
    assert product is not None
    if node.output.type != products[0].type:
        return rewriter.note(node, f"the scales change the shape of {product.where}")
    factors.remove(products[0])
    x = _quantized_input(product, 0, factors)
    if x is None:
        return rewriter.note(node, f"the input of {product.where} is not quantized dynamically by the scale here")
    other = _quantized_input(product, 1, factors)
    scale = _constant_factor(factors, node)
    if scale is None:
        return rewriter.note(node, "not all scales of weights are constant")
    if other is not None:
        return rewriter.replace(node, _scaled(rewriter, _layer(rewriter, product, x, other), scale, node))
    if not factors and _scale_follows(node):
        return False
    weight = _weight(rewriter, product, scale, node)
    return weight is not None and rewriter.replace(node, _layer(rewriter, product, x, weight))


def _factors(value: Value) -> Iterator[Value]:
    """What is multiplied to make ``value``."""
    if value.producer is not None and isinstance(value.op, Mul) and value.op.clamp is None:
        for operand in value.producer.inputs:
            yield from _factors(operand)
    else:
        yield value


def _integer_product(value: Value) -> Node | None:
    """The integer product that ``value`` is the float form of."""
    if not isinstance(value.op, Cast) or value.op.dtype is not DType.F32 or value.producer is None:
        return None
    source = value.producer.inputs[0].producer
    return source if source is not None and isinstance(source.op, MatMulInteger | ConvInteger) else None


def _quantized_input(product: Node, position: int, factors: list[Value]) -> Value | None:
    """What was quantized dynamically to make an operand; its scale leaves ``factors``."""
    stored, zero = product.inputs[position], product.inputs[position + 2]
    source = stored.producer
    if source is None or not isinstance(source.op, DynamicQuantize):
        return None
    quantized, scale, zero_point = source.outputs
    if stored is not quantized or zero is not zero_point or scale not in factors:
        return None
    factors.remove(scale)
    return source.inputs[0]


def _constant_factor(factors: list[Value], node: Node) -> np.ndarray | None:
    """The product of constant factors: one number, or one for each output channel; None when one is not constant."""
    axis, rank = _channel_axis(node), node.output.type.rank
    channels = node.output.type.shape[axis]
    total = np.ones(1)
    for factor in factors:
        array = array_of(factor)
        if array is not None and array.size != 1:
            array = per_channel_array(factor, channels, axis, rank) if isinstance(channels, int) else None
        if array is None:
            return None
        total = total * array.reshape(-1).astype(np.float64)
    return total


def _channel_axis(node: Node) -> int:
    """The axis of output channels: the last one of a matrix product, the second one of a convolution."""
    convolves = any(
        isinstance(p.op, ConvInteger) for f in _factors(node.output) if (p := _integer_product(f)) is not None
    )
    return 1 if convolves else node.output.type.rank - 1


def _scale_follows(node: Node) -> bool:
    """Whether the weight's scale is multiplied next."""
    users = node.output.users
    return len(users) == 1 and isinstance(users[0].op, Mul) and any(map(_is_constant, users[0].inputs))


def _is_constant(value: Value) -> bool:
    return array_of(value) is not None


def _weight(rewriter: Rewriter, product: Node, scale: np.ndarray, node: Node) -> Value | None:
    """The constant weight in the layout of a layer, on its grid; None when there is none such."""
    stored, zero = array_of(product.inputs[1]), array_of(product.inputs[3])
    if stored is None or zero is None:
        rewriter.note(node, f"the weight of {product.where} is neither constant nor quantized dynamically")
        return None
    if isinstance(product.op, MatMulInteger):
        if stored.ndim != 2:
            rewriter.note(node, f"the weight of {product.where} is a batch of matrices")
            return None
        stored = np.ascontiguousarray(stored.T)
    quant = _params(scale, zero.reshape(-1), len(stored))
    if quant is None:
        rewriter.note(node, f"{product.where} has scales that are not positive, or zero points of another shape")
        return None
    return weight_on_grid(rewriter, stored, quant, product.inputs[1].name)


def _params(scale: np.ndarray, zero: np.ndarray, channels: int) -> QuantParams | None:
    """One scale and zero point, or one for each output channel; None when they are no parameters of a grid."""
    if not np.all((scale > 0) & np.isfinite(scale)) or zero.size not in (1, channels):
        return None
    if scale.size == zero.size == 1:
        return per_tensor(float(scale[0]), int(zero[0]))
    spread = (np.broadcast_to(part, (channels,)).tolist() for part in (scale, zero))
    return per_channel(next(spread), next(spread), 0)


def _layer(rewriter: Rewriter, product: Node, x: Value, other: Value) -> Value:
    """The product of real numbers."""
    match product.op:
        case ConvInteger(real=real):
            op: Op = real
        case _:
            op = Linear() if _integer_constant(product) else MatMul()
    return rewriter.insert(op, x, other, origin=product.origin)


def _integer_constant(product: Node) -> bool:
    return _is_constant(product.inputs[1])


def _scaled(rewriter: Rewriter, value: Value, scale: np.ndarray, node: Node) -> Value:
    """``value`` times constant factors along its channels."""
    if np.all(scale == 1.0):
        return value
    shape = [1] * value.type.rank
    shape[_channel_axis(node)] = -1
    return rewriter.insert(Mul(), value, rewriter.constant(scale.reshape(shape).astype(np.float32), "scale"))
