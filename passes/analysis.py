"""Questions that several passes ask of a graph."""

from __future__ import annotations

import numpy as np

from ..ir.constants import Tensor
from ..ir.graph import Graph, Node, Value
from ..ir.op import Op, operand_index
from ..ir.ops.constant import Constant
from ..ir.ops.norm import BatchNorm

Place = tuple[type[Op], str]
"""An operand of an op, by its name."""


def constant_of(value: Value) -> Tensor | None:
    """The data of a constant without quantization parameters; None for every other value."""
    match value.op:
        case Constant(data=data, quant=None):
            return data
        case _:
            return None


def array_of(value: Value) -> np.ndarray | None:
    """The elements of a constant, read-only."""
    data = constant_of(value)
    return None if data is None else data.numpy()


def scalar_of(value: Value) -> float | None:
    """The number that every element of a constant equals, if there is one."""
    data = constant_of(value)
    if data is None or data.size == 0 or data.size > 65536:
        return None
    flat = data.numpy().reshape(-1)
    first = flat[0]
    # NaN is unequal to itself and so never counts as uniform.
    return float(first) if bool((flat == first).all()) else None


def sole_user(value: Value, graph: Graph) -> Node | None:
    """The node of the only use of ``value``; None when it has other uses or is an output of the graph."""
    uses = value.uses
    return uses[0][0] if len(uses) == 1 and not graph.is_output(value) else None


def used_once(value: Value) -> bool:
    """Whether ``value`` has one use in all, graph outputs included."""
    graph = value.producer.graph if value.producer else None
    return len(value.uses) == 1 and (graph is None or not graph.is_output(value))


def is_operand(value: Value, *places: Place) -> bool:
    """Whether a node reads ``value`` in one of these places."""
    return any(
        isinstance(node.op, op) and position == operand_index(type(node.op), name)
        for node, position in value.uses
        for op, name in places
    )


def is_norm_scale(value: Value) -> bool:
    """Whether ``value`` is what a batch normalization multiplies its channels by."""
    return is_operand(value, (BatchNorm, "scale"))


def per_channel_array(value: Value, channels: int, axis: int, rank: int) -> np.ndarray | None:
    """A constant that broadcasts along every axis but ``axis`` of a tensor of ``rank``, as ``channels`` elements."""
    array = array_of(value)
    if array is None or array.ndim > rank:
        return None
    if array.size == 1:
        return np.repeat(array.reshape(1), channels)
    wide = array.reshape((1,) * (rank - array.ndim) + array.shape)
    return wide.reshape(-1) if wide.size == wide.shape[axis] == channels else None


def has_residual(node: Node) -> bool:
    """Whether a convolution or linear layer adds a residual."""
    return len(node.inputs) > 3


def users_first(graph: Graph) -> list[Node]:
    """The nodes in an order in which every user precedes what it uses."""
    return list(graph.nodes)[::-1]
