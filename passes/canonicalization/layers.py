"""Linear layers: a matrix product with constant weights, and the bias added to it."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Node
from ...ir.ops.conv import Conv, ConvTranspose
from ...ir.ops.elementwise import Add
from ...ir.ops.matmul import Linear, MatMul
from ..analysis import array_of, has_residual, per_channel_array, used_once
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
    parameter = rewriter.constant(array, origin=layer.origin, instead=(biases or [other])[0])
    return rewriter.replace(node, rewriter.insert(layer.op, x, weight, parameter, origin=layer.origin))


PATTERNS = (matmul_of_constant, bias)
