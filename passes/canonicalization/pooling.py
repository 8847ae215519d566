"""Pooling and reduction: over everything, over nothing, and over axes of size 1."""

from __future__ import annotations

import dataclasses

from ...ir.graph import Node
from ...ir.ops.pool import AvgPool, MaxPool
from ...ir.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum
from ...ir.ops.shape import Reshape
from ..analysis import used_once
from ..rewriting import Rewriter, pattern


@pattern(AvgPool, MaxPool)
def pool_of_one(node: Node, rewriter: Rewriter) -> bool:
    """Pooling with windows of one element and stride 1 -> nothing."""
    assert isinstance(node.op, AvgPool | MaxPool)
    if any(k != 1 for k in node.op.kernel) or node.output.type != node.inputs[0].type:
        return False
    return not any(map(any, node.op.padding)) and rewriter.replace(node, node.inputs[0])


@pattern(AvgPool)
def average_of_all(node: Node, rewriter: Rewriter) -> bool:
    """Average pooling with one window over all of the space -> a mean."""
    assert isinstance(node.op, AvgPool)
    x = node.inputs[0].type
    if x.shape[2:] != node.op.kernel or any(map(any, node.op.padding)):
        return False
    return rewriter.replace(node, rewriter.insert(ReduceMean(tuple(range(2, x.rank)), True), node.inputs[0]))


@pattern(ReduceMax)
def maximum_of_all(node: Node, rewriter: Rewriter) -> bool:
    """Maximum over all of the space -> max pooling, which stays on its input's grid, and a reshape."""
    assert isinstance(node.op, ReduceMax)
    x = node.inputs[0].type
    kernel = tuple(size for size in x.shape[2:] if isinstance(size, int))
    if not 1 <= len(kernel) <= 3 or len(kernel) != x.rank - 2 or node.op.axes != tuple(range(2, x.rank)):
        return False
    ones = (1,) * len(kernel)
    pooled = rewriter.insert(MaxPool(kernel, ones, ((0, 0),) * len(kernel), ones), node.inputs[0])
    return rewriter.replace(node, pooled if node.op.keep else rewriter.insert(Reshape(node.output.type.shape), pooled))


@pattern(ReduceMean, ReduceSum, ReduceMax, ReduceMin, ReduceProd)
def reduction_of_ones(node: Node, rewriter: Rewriter) -> bool:
    """Reduction over no axes or axes of size 1 alone -> reshape, or nothing."""
    assert isinstance(node.op, ReduceMean | ReduceSum | ReduceMax | ReduceMin | ReduceProd)
    x = node.inputs[0]
    if any(x.type.shape[axis] != 1 for axis in node.op.axes) or x.type.dtype is not node.output.type.dtype:
        return False
    if x.type.shape == node.output.type.shape:
        return rewriter.replace(node, x)
    return rewriter.replace(node, rewriter.insert(Reshape(node.output.type.shape), x))


@pattern(Reshape)
def reduction_then_squeeze(node: Node, rewriter: Rewriter) -> bool:
    """Reduction that keeps its axes, and a reshape that drops them -> a reduction that drops them."""
    value = node.inputs[0]
    reduction = value.producer
    if reduction is None or not isinstance(reduction.op, ReduceMean | ReduceSum | ReduceMin):
        return False
    dropped = dataclasses.replace(reduction.op, keep=False)
    if not reduction.op.keep or dropped.infer(reduction.inputs[0].type) != (node.output.type,):
        return False
    if not used_once(value):
        return rewriter.note(node, f"the output of {reduction.where} has other uses")
    return rewriter.replace(node, rewriter.insert(dropped, *reduction.inputs, origin=reduction.origin))


PATTERNS = (pool_of_one, average_of_all, maximum_of_all, reduction_of_ones, reduction_then_squeeze)
