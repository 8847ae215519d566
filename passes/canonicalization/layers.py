"""Linear layers: a matrix product with constant weights, and the bias added to it."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Node, Value
from ...ir.ops.conv import Conv, ConvTranspose
from ...ir.ops.elementwise import Add, Mul
from ...ir.ops.matmul import Linear, MatMul
from ...ir.ops.shape import Reshape, Transpose
from ..analysis import array_of, has_residual, per_channel_array, scalar_of, used_once
from ..rewriting import Rewriter, pattern


@pattern(MatMul)
def matmul_of_constant(node: Node, rewriter: Rewriter) -> bool:
    """Matrix product with one constant matrix on the right -> linear."""
    a, b = node.inputs
    array = array_of(b)
    if array is None or not a.type.dtype.is_float or array_of(a) is not None:
        return False
    if any(size != 1 for size in array.shape[:-2]) or node.output.type.rank != a.type.rank:
        return rewriter.note(node, "the constant is a batch of matrices")
    matrix = array.reshape(array.shape[-2:])
    weight = rewriter.constant(np.ascontiguousarray(matrix.T), instead=b)
    return rewriter.replace(node, rewriter.insert(Linear(), a, weight))


@pattern(Add)
def bias(node: Node, rewriter: Rewriter) -> bool:
    """Layer + constant per output channel -> the layer's bias."""
    value, other = node.inputs
    layer = value.producer
    if layer is None or not isinstance(layer.op, Conv | ConvTranspose | Linear) or value.type != node.output.type:
        return False
    axis = value.type.rank - 1 if isinstance(layer.op, Linear) else 1
    channels = value.type.shape[axis]
    array = per_channel_array(other, channels, axis, value.type.rank) if isinstance(channels, int) else None
    if array is None or layer.op.clamp is not None or has_residual(layer) or getattr(node.op, "clamp", None):
        return False
    if not used_once(value):
        return rewriter.note(node, f"the output of {layer.where} has other uses")
    x, weight, *biases = layer.inputs
    if biases:
        former = array_of(biases[0])
        if former is None:
            return rewriter.note(node, f"the bias of {layer.where} is not constant")
        array = (former.astype(np.float64) + array.astype(np.float64)).astype(array.dtype)
    parameter = rewriter.constant(array, origin=layer.origin, instead=(biases or [other])[0], of=[other])
    return rewriter.replace(node, rewriter.insert(layer.op, x, weight, parameter, origin=layer.origin))


@pattern(Mul)
def scale_of_matmul(node: Node, rewriter: Rewriter) -> bool:
    """Matrix product times a number -> the number goes to the layer that made the left factor, as in attention."""
    product = node.inputs[0].producer
    number = scalar_of(node.inputs[1])
    if number is None or product is None or not isinstance(product.op, MatMul) or getattr(node.op, "clamp", None):
        return False
    if node.output.type != product.output.type or not used_once(product.output):
        return False
    moves, layer = _moves_after_layer(product.inputs[0])
    if layer is None:
        return rewriter.note(node, "no linear layer makes the left factor")
    value = rewriter.insert(Mul(), layer, node.inputs[1])
    for move in reversed(moves):
        value = rewriter.inherit(rewriter.insert(move.op, value, origin=move.origin), move.output)
    return rewriter.replace(node, rewriter.insert(product.op, value, product.inputs[1], origin=product.origin))


def _moves_after_layer(value: Value) -> tuple[list[Node], Value | None]:
    """The reshapes and transposes above ``value``, last first, and the output of the layer above them, if any."""
    moves: list[Node] = []
    while (node := value.producer) and used_once(value):
        if isinstance(node.op, Linear | Conv):
            return moves, value if node.op.clamp is None and not has_residual(node) else None
        if not isinstance(node.op, Reshape | Transpose):
            break
        moves.append(node)
        value = node.inputs[0]
    return moves, None


PATTERNS = (matmul_of_constant, bias, scale_of_matmul)
