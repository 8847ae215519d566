"""Which channels of a network must be removed together.

Every op ties indices of the axes of its operands and results (:mod:`octavo.ir.channels`). Indices that are connected by
ties are one *unit*: a channel wherever it appears, from the rows of the weights that make it to the columns of all
weights that read it. Units that appear in the same axes are a *group*. An index that an op cannot do without, such as
one of a network's input, is fixed, and so is everything tied to it.

The dependency graph of Fang et al., "DepGraph: Towards Any Structural Pruning" (CVPR 2023), on single indices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.channels import Alternative, Flow, Slot, Tie, sized
from ...ir.graph import Graph, Node, Value
from ...ir.op import Quantization
from ...ir.ops.constant import Constant
from ...ir.ops.matmul import Linear, MatMul
from ...ir.types import TensorType

Axis = tuple[Value, int]
"""An axis of a value."""


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Units that appear in the same axes; any number of them, but one, may be removed.

    ``units`` (int64, ascending) are numbers of :attr:`Channels.unit_of`.
    """

    axes: tuple[Axis, ...]
    units: np.ndarray

    @property
    def parameters(self) -> Iterator[tuple[Value, int]]:
        """The constants among the axes."""
        return ((value, axis) for value, axis in self.axes if isinstance(value.op, Constant))


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of one graph."""

    unit_of: dict[Axis, np.ndarray]
    """The unit of every index of every axis of known size above 1."""
    groups: tuple[ChannelGroup, ...]
    reasons: dict[int, str]
    """Why a unit is fixed, by unit."""

    def without(self, units: np.ndarray) -> Channels:
        """The channels of the graph that is left when ``units`` go; numbers of units stay what they are.

        Nothing is analyzed again, so that a merged axis goes on following the factor that it followed. A group may be
        left with one unit, which must stay.
        """
        stays = self.stays(units)
        unit_of = {axis: numbers[stays[numbers]] for axis, numbers in self.unit_of.items()}
        left = (ChannelGroup(group.axes, np.setdiff1d(group.units, units)) for group in self.groups)
        return Channels(unit_of, tuple(group for group in left if len(group.units)), self.reasons)

    def stays(self, units: np.ndarray) -> np.ndarray:
        """Whether each unit, by its number, stays (bool) when ``units`` go."""
        numbers = (int(own.max(initial=0)) for own in (*self.unit_of.values(), units))
        stays = np.ones(max(numbers, default=0) + 1, bool)
        stays[units] = False
        return stays


def find_channels(graph: Graph) -> Channels:
    """The channel groups of a float graph."""
    return _Analysis(graph).run()


def stored_values(graph: Graph) -> set[Value]:
    """Constants, and what is computed from them alone: weights rather than activations."""
    stored: set[Value] = set()
    for node in graph.nodes:
        if stored.issuperset(node.inputs):
            stored.update(node.outputs)
    return stored


def channel_axis(node: Node, stored: set[Value]) -> Axis | None:
    """The axis along which a layer, or a product with stored weights, makes channels; None for other nodes."""
    last = node.outputs[0].type.rank - 1
    if node.op.rule is Quantization.WEIGHTED:
        return node.output, last if isinstance(node.op, Linear) else 1
    if isinstance(node.op, MatMul) and not stored.isdisjoint(node.inputs):
        return node.output, last if node.inputs[1] in stored else last - 1
    return None


class _Analysis:
    """The state of one analysis: every index of every axis is a number, and ties are edges between numbers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.starts: dict[Axis, int] = {}
        self.sizes: dict[Axis, int] = {}
        total = 0
        for value in graph.values():
            for axis, size in sized(value.type.shape):
                self.starts[value, axis], self.sizes[value, axis] = total, size
                total += size
        self.total = total
        self.left: list[np.ndarray] = []
        self.right: list[np.ndarray] = []
        self.fixed: list[tuple[np.ndarray, str]] = []

    def run(self) -> Channels:
        flows = [(node, node.op.channels(_types(node.inputs), _types(node.outputs))) for node in self.graph.nodes]
        for node, flow in flows:
            self._tie(node, flow.ties)
        self._fix(flows)
        plain = self._components()
        for node, alternatives in self._settled(flows, plain):
            self._tie(node, alternatives.ties)
        return self._grouped(self._components())

    def _axis(self, node: Node, slot: Slot) -> Axis:
        return (node.outputs if slot.is_result else node.inputs)[slot.position], slot.axis

    def _tie(self, node: Node, ties: Sequence[Tie]) -> None:
        for tie in ties:
            left, right = self._axis(node, tie.left), self._axis(node, tie.right)
            if left in self.starts and right in self.starts:
                self.left.append(self.starts[left] + tie.left_at)
                self.right.append(self.starts[right] + tie.right_at)
            for axis, at, other in ((left, tie.left_at, right), (right, tie.right_at, left)):
                if axis in self.starts and other not in self.starts:
                    self.fixed.append((self.starts[axis] + at, f"{node.where}: it has no other"))

    def _fix(self, flows: Sequence[tuple[Node, Flow]]) -> None:
        """Axes of inputs and outputs, and those that an op does not mention."""
        for value in self.graph.inputs:
            self._fix_axes(value, "the network's input has it")
        for value in self.graph.outputs:
            self._fix_axes(value, "the network's output has it")
        for node, flow in flows:
            if isinstance(node.op, Constant):
                continue
            ties = [*flow.ties, *(tie for choice in flow.choices for way in choice for tie in way.ties)]
            mentioned = {self._axis(node, slot) for tie in ties for slot in (tie.left, tie.right)}
            for value in (*node.inputs, *node.outputs):
                for axis, _ in sized(value.type.shape):
                    if (value, axis) not in mentioned:
                        self._fix_axis((value, axis), f"{node.where}: {flow.reason}")

    def _fix_axes(self, value: Value, reason: str) -> None:
        for axis, _ in sized(value.type.shape):
            self._fix_axis((value, axis), reason)

    def _fix_axis(self, axis: Axis, reason: str) -> None:
        self.fixed.append((np.arange(self.starts[axis], self.starts[axis] + self.sizes[axis]), reason))

    def _settled(self, flows: Sequence[tuple[Node, Flow]], units: np.ndarray) -> Iterator[tuple[Node, Alternative]]:
        """One alternative of each choice; the factors not taken are fixed.

        An axis that is merged in one place and split in another should be the same factor in both: one that is fixed
        already is no use, one that is the outer factor everywhere (attention heads, channels before pixels) serves
        best, then the longest.
        """
        choices = [(node, choice) for node, flow in flows for choice in flow.choices]
        fixed = {int(unit) for numbers, _ in self.fixed for unit in np.unique(units[numbers])}
        inner = {self._class(node, way, units) for node, choice in choices for way in choice if not way.outer}
        for node, choice in choices:

            def rank(way: Alternative, node: Node = node) -> tuple[bool, bool, int]:
                axis = self._axis(node, way.factor)
                dead = any(int(unit) in fixed for unit in units[self._span(axis)])
                return dead, self._class(node, way, units) in inner, -self.sizes[axis]

            best = min(choice, key=rank)
            for way in choice:
                if way is not best:
                    self._fix_axis(self._axis(node, way.factor), f"{node.where}: reshape merges it with others")
            yield node, best

    def _class(self, node: Node, way: Alternative, units: np.ndarray) -> int:
        """A number that factors which are tied index by index have in common."""
        return int(units[self._span(self._axis(node, way.factor))][0])

    def _span(self, axis: Axis) -> slice:
        return slice(self.starts[axis], self.starts[axis] + self.sizes[axis])

    def _components(self) -> np.ndarray:
        """The smallest number connected to each number."""
        label = np.arange(self.total)
        if not self.left:
            return label
        left, right = np.concatenate(self.left), np.concatenate(self.right)
        while True:
            low = np.minimum(label[left], label[right])
            before = label.copy()
            np.minimum.at(label, label[left], low)
            np.minimum.at(label, label[right], low)
            np.minimum.at(label, left, low)
            np.minimum.at(label, right, low)
            while not np.array_equal(shorter := label[label], label):
                label = shorter
            if np.array_equal(before, label):
                return label

    def _grouped(self, units: np.ndarray) -> Channels:
        unit_of = {axis: units[self._span(axis)] for axis in self.starts}
        reasons: dict[int, str] = {}
        for numbers, reason in self.fixed:
            for unit in np.unique(units[numbers]):
                reasons.setdefault(int(unit), reason)
        places: dict[int, list[int]] = {}
        axes = list(unit_of)
        for number, axis in enumerate(axes):
            for unit in np.unique(unit_of[axis]):
                if int(unit) not in reasons:
                    places.setdefault(int(unit), []).append(number)
        members: dict[tuple[int, ...], list[int]] = {}
        for unit, where in places.items():
            members.setdefault(tuple(where), []).append(unit)
        groups = tuple(
            ChannelGroup(tuple(axes[number] for number in where), np.array(sorted(found)))
            for where, found in members.items()
            if len(found) > 1
        )
        return Channels(unit_of, groups, reasons)


def _types(values: Sequence[Value]) -> list[TensorType]:
    return [value.type for value in values]
