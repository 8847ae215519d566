"""Magnitudes, as of the complex numbers of a spectrum: squares, their sum, and its root or logarithm.

A square has twice the range of what it is made from, in decades: on an int8 grid that holds the loud parts of a sound,
the quiet ones are all zero. The root brings the range back, too late. So nodes of this shape stay in float, and with
them the layer that exists for them alone, the Fourier transform: its grid would be as coarse for quiet parts.
"""

from __future__ import annotations

from ..ir.graph import Graph, Node
from ..ir.op import Quantization
from ..ir.ops.elementwise import Add, Log, Mul, Sqrt
from ..ir.ops.function import Call, Expression, Function
from ..ir.ops.reduce import ReduceMean, ReduceSum

REASON = "part of a magnitude: squares have twice the range of what they are made from"


def magnitude_nodes(graph: Graph) -> set[Node]:
    """The nodes of all magnitudes of a graph, the layers that only they read included."""
    found: set[Node] = set()
    for node in graph.nodes:
        if isinstance(node.op, Mul) and node.inputs[0] is node.inputs[1]:
            found |= _sums_and_roots(node, graph) or set()
    pending = list(found)
    while pending:
        for value in pending.pop().inputs:
            source = value.producer
            if source is None or source in found or not _feeds_only(source, found, graph):
                continue
            if source.op.rule is Quantization.PRESERVING:
                pending.append(source)
            elif source.op.rule is not Quantization.WEIGHTED:
                continue
            found.add(source)
    return found


def _sums_and_roots(square: Node, graph: Graph) -> set[Node] | None:
    """The square, the sums it goes into and the roots of these; None when it goes anywhere else."""
    region, pending = {square}, [square]
    while pending:
        node = pending.pop()
        if any(map(graph.is_output, node.outputs)):
            return None
        for user in (user for value in node.outputs for user in value.users):
            if isinstance(user.op, Add | ReduceSum | ReduceMean):
                pending += [] if user in region else [user]
            elif not _is_root(user):
                return None
            region.add(user)
    return region


def _is_root(node: Node) -> bool:
    op = node.op
    return isinstance(op, Sqrt | Log) or (isinstance(op, Function) and _has_root(op.expression))


def _has_root(expression: Expression) -> bool:
    return isinstance(expression, Call) and (
        isinstance(expression.op, Sqrt | Log) or any(map(_has_root, expression.operands))
    )


def _feeds_only(node: Node, region: set[Node], graph: Graph) -> bool:
    return all(user in region for value in node.outputs for user in value.users) and not any(
        map(graph.is_output, node.outputs)
    )
