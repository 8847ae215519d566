"""How much of a network is left without some of its channels, counted without removing them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.op import Op
from ...ir.ops.constant import Constant
from ...ir.types import TensorType
from .groups import Axis, ChannelGroup, Channels

Measure = Callable[[Op, Sequence[TensorType], Sequence[TensorType]], float]
"""What one node adds to an amount, from the types of its operands and results (batch 1)."""

Counts = tuple[int, ...]
"""How many units of each group go, the least important ones."""


def count_macs(op: Op, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> float:
    """Multiply-accumulates."""
    return op.cost(inputs, outputs).macs


def count_parameters(op: Op, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> float:
    """Elements of constants."""
    return outputs[0].size if isinstance(op, Constant) else 0


@dataclass(frozen=True, eq=False)
class Ranking:
    """The units of a group (int64) in the order in which they go, with their scores (float64, ascending).

    At least ``floor`` units stay, and their number is a multiple of ``multiple`` unless none goes.
    """

    group: ChannelGroup
    units: np.ndarray
    scores: np.ndarray
    floor: int
    multiple: int

    def allowed(self, count: int) -> int:
        """The largest number of units up to ``count`` that may go."""
        size = len(self.units)
        left = -(-max(size - count, self.floor, 1) // self.multiple) * self.multiple
        return max(size - left, 0)

    def next(self, count: int) -> int | None:
        """The smallest number above ``count`` that may go; None when no more may."""
        left = (len(self.units) - count - 1) // self.multiple * self.multiple
        return len(self.units) - left if left >= max(self.floor, 1) else None


def chosen(rankings: Sequence[Ranking], counts: Counts) -> np.ndarray:
    """The units that go."""
    first = [ranking.units[:count] for ranking, count in zip(rankings, counts, strict=True)]
    return np.concatenate(first) if first else np.zeros(0, np.int64)


class Amount(ABC):
    """How much there is when every group has lost its least important units."""

    @abstractmethod
    def left(self, counts: Counts) -> float:
        """What is left of the whole network."""

    @abstractmethod
    def saved(self, counts: Counts, number: int, count: int) -> float:
        """How much more goes when group ``number`` loses ``count`` units rather than ``counts[number]``."""


@dataclass(frozen=True)
class ChannelAmount(Amount):
    """The number of channels, of ``total``."""

    total: int

    def left(self, counts: Counts) -> float:
        return self.total - sum(counts)

    def saved(self, counts: Counts, number: int, count: int) -> float:
        return count - counts[number]


class NodeAmount(Amount):
    """The sum over nodes of what they add.

    Sizes follow from counts alone, so that trying a choice costs no more than adding up the nodes.
    """

    def __init__(self, graph: Graph, channels: Channels, rankings: Sequence[Ranking], measure: Measure) -> None:
        self._measure = measure
        self._types = _of_one(graph)
        self._losses: dict[Axis, list[tuple[int, np.ndarray]]] = {}
        for number, ranking in enumerate(rankings):
            for axis in ranking.group.axes:
                self._losses.setdefault(axis, []).append((number, _lost(ranking.units, channels.unit_of[axis])))
        none = (0,) * len(rankings)
        self._nodes = [node for node in graph.nodes if self._amount(node, none)]
        touched = [set(group.axes) for group in (ranking.group for ranking in rankings)]
        self._of_group = [[node for node in self._nodes if _touches(node, axes)] for axes in touched]

    def left(self, counts: Counts) -> float:
        return sum(self._amount(node, counts) for node in self._nodes)

    def saved(self, counts: Counts, number: int, count: int) -> float:
        after = (*counts[:number], count, *counts[number + 1 :])
        return sum(self._amount(node, counts) - self._amount(node, after) for node in self._of_group[number])

    def _amount(self, node: Node, counts: Counts) -> float:
        inputs, outputs = ([self._type(value, counts) for value in values] for values in (node.inputs, node.outputs))
        return self._measure(node.op, inputs, outputs)

    def _type(self, value: Value, counts: Counts) -> TensorType:
        type = self._types[value]
        lost = {axis: self._losses[value, axis] for axis in range(type.rank) if (value, axis) in self._losses}
        if not lost:
            return type
        shape = list(type.static_shape)
        for axis, losses in lost.items():
            shape[axis] -= sum(int(gone[counts[number]]) for number, gone in losses)
        return type.with_shape(tuple(shape))


def _lost(units: np.ndarray, unit_of: np.ndarray) -> np.ndarray:
    """How many indices of an axis go with the first 0, 1, 2, ... of ``units``."""
    numbers, counts = np.unique(unit_of, return_counts=True)
    return np.concatenate([[0], np.cumsum(counts[np.searchsorted(numbers, units)])])


def _touches(node: Node, axes: set[Axis]) -> bool:
    return any((value, axis) in axes for value in (*node.inputs, *node.outputs) for axis in range(value.type.rank))


def _of_one(graph: Graph) -> dict[Value, TensorType]:
    """The type of every value when each unknown dimension, such as the batch's, is 1."""
    inputs = {value.name: _fixed(value.type) for value in graph.inputs}
    single = graph.clone(inputs=inputs)
    return {value: twin.type for value, twin in zip(graph.values(), single.values(), strict=True)}


def _fixed(type: TensorType) -> TensorType:
    return type.with_shape(tuple(size if isinstance(size, int) else 1 for size in type.shape))
