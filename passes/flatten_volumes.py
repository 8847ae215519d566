"""Three-dimensional layers as two-dimensional ones, which have integer kernels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph, Node, Value
from ..ir.ops.constant import Constant
from ..ir.ops.conv import Conv
from ..ir.ops.pool import AvgPool, MaxPool
from ..ir.ops.sampling import Col2Im
from ..ir.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from .base import Exactness, Pass, PassContext
from .registry import register_pass
from .rewriting import Rewriter, pattern, rewrite

BESIDE = (0, 2, 1, 3, 4)
"""Swaps channels and depth."""


@register_pass
@dataclass(frozen=True)
class FlattenVolumes(Pass):
    """Turn convolutions and pools of volumes into those of images, and windows that do not overlap into an image."""

    name: ClassVar[str] = "flatten-volumes"
    exactness: ClassVar[Exactness] = Exactness.CLOSE

    def apply(self, graph: Graph, context: PassContext) -> bool:
        return rewrite(graph, (convolution, max_pool, average_pool, windows), context)


@pattern(Conv)
def convolution(node: Node, rewriter: Rewriter) -> bool:
    """Conv over (depth, rows, columns) -> conv of images whose channels are those of the slices that a tap reads.

    Every output slice becomes an image of the batch, and its input slices lie beside each other as channels, so that
    the products of one output are summed in one accumulator.
    """
    op, x, weight = node.op, node.inputs[0], node.inputs[1]
    assert isinstance(op, Conv)
    if len(op.stride) != 3 or not isinstance(weight.op, Constant) or not node.output.type.is_static:
        return False
    outputs, inputs, taps, *kernel = weight.type.static_shape
    batch, channels, depth, rows, columns = node.output.type.static_shape
    if any(op.padding[0]):
        x = rewriter.insert(Pad(((0, 0), (0, 0), op.padding[0], (0, 0), (0, 0))), x)
    images = _neighbours(x, op, depth, taps, rewriter)
    array = weight.op.data.numpy().reshape(outputs, inputs * taps, *kernel)
    flat = rewriter.constant(array, weight.name, of=[weight])
    others = [_flattened(value, rewriter) if value.type.rank == 5 else value for value in node.inputs[2:]]
    small = dataclasses.replace(op, stride=op.stride[1:], padding=op.padding[1:], dilation=op.dilation[1:])
    y = rewriter.insert(small, images, flat, *others)
    y = rewriter.insert(Reshape((batch, depth, channels, rows, columns)), y)
    return rewriter.replace(node, rewriter.insert(Transpose(BESIDE), y))


def _neighbours(x: Value, op: Conv, depth: int, taps: int, rewriter: Rewriter) -> Value:
    """(N, C, D, H, W) as (N * depth, C * taps, H, W): for every output slice the input slices under its taps."""
    batch, channels, _, rows, columns = x.type.static_shape
    parts: list[Value] = []
    for tap in range(taps):
        start = tap * op.dilation[0]
        stop = start + (depth - 1) * op.stride[0] + 1
        bounds = (0, 0, start, 0, 0), (batch, channels, stop, rows, columns), (1, 1, op.stride[0], 1, 1)
        part = rewriter.insert(Slice(*bounds), x)
        parts.append(rewriter.insert(Reshape((batch, channels, 1, depth, rows, columns)), part))
    stacked = parts[0] if taps == 1 else rewriter.insert(Concat(2), *parts)
    turned = rewriter.insert(Transpose((0, 3, 1, 2, 4, 5)), stacked)
    return rewriter.insert(Reshape((batch * depth, channels * taps, rows, columns)), turned)


def _flattened(x: Value, rewriter: Rewriter) -> Value:
    """(N, C, D, H, W) as (N * D, C, H, W)."""
    batch, channels, depth, rows, columns = x.type.static_shape
    turned = rewriter.insert(Transpose(BESIDE), x)
    return rewriter.insert(Reshape((batch * depth, channels, rows, columns)), turned)


@pattern(MaxPool)
def max_pool(node: Node, rewriter: Rewriter) -> bool:
    """MaxPool over volumes -> one over the images, one over the depth."""
    assert isinstance(node.op, MaxPool)
    return _pool_in_turn(node, node.op, rewriter)


@pattern(AvgPool)
def average_pool(node: Node, rewriter: Rewriter) -> bool:
    """AvgPool over volumes -> one over the images, one over the depth, where all windows have the same size."""
    op = node.op
    assert isinstance(op, AvgPool)
    if any(map(any, op.padding)):
        return False
    return _pool_in_turn(node, dataclasses.replace(op, overhang=()), rewriter)


def _pool_in_turn(node: Node, op: MaxPool | AvgPool, rewriter: Rewriter) -> bool:
    if len(op.kernel) != 3 or not node.output.type.is_static:
        return False
    batch, channels, depth, height, width = node.inputs[0].type.static_shape
    rows, columns = node.output.type.static_shape[3:]
    x = rewriter.insert(Reshape((batch, channels * depth, height, width)), node.inputs[0])
    images = dataclasses.replace(
        op, kernel=op.kernel[1:], stride=op.stride[1:], padding=op.padding[1:], dilation=op.dilation[1:]
    )
    x = rewriter.insert(Reshape((batch, channels, depth, rows * columns)), rewriter.insert(images, x))
    along = dataclasses.replace(
        op,
        kernel=(op.kernel[0], 1),
        stride=(op.stride[0], 1),
        padding=(op.padding[0], (0, 0)),
        dilation=(op.dilation[0], 1),
    )
    x = rewriter.insert(along, x)
    return rewriter.replace(node, rewriter.insert(Reshape(node.output.type.shape), x))


@pattern(Col2Im)
def windows(node: Node, rewriter: Rewriter) -> bool:
    """Windows side by side, summed into an image -> their elements in another order."""
    op = node.op
    assert isinstance(op, Col2Im)
    whole = all(size % kernel == 0 for size, kernel in zip(op.size, op.kernel, strict=True))
    if len(op.size) != 2 or op.kernel != op.stride or not whole or any(map(any, op.padding)) or set(op.dilation) != {1}:
        return False
    batch, channels, *_ = node.output.type.static_shape
    (rows, columns), (height, width) = op.kernel, op.size
    x = rewriter.insert(Reshape((batch, channels, rows, columns, height // rows, width // columns)), node.inputs[0])
    x = rewriter.insert(Transpose((0, 1, 4, 2, 5, 3)), x)
    return rewriter.replace(node, rewriter.insert(Reshape(node.output.type.shape), x))
