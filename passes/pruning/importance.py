"""How much each channel matters, judged by the weights it touches, by gradients, or by its activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from ...ir.constants import Tensor
from ...ir.errors import CalibrationError, PassError
from ...ir.graph import Graph, Node, Value
from ...ir.interpreter import run_graph, run_node, to_numpy
from ...ir.op import Quantization
from ...ir.ops.constant import Constant
from ...ir.types import DType
from ..analysis import is_norm_scale
from ..training.gradients import saliencies
from .groups import Axis, ChannelGroup, Channels, stored_values

Importance = Literal["l1", "l2", "geometric-median", "batch-norm", "random", "taylor", "activation"]

Criterion = Callable[[np.ndarray], np.ndarray]
"""From a matrix (channels, weights of each) to a score for each channel."""

Batches = Iterable[Mapping[str, np.ndarray]]


def _l1(rows: np.ndarray) -> np.ndarray:
    """Sum of magnitudes (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017)."""
    return np.asarray(np.abs(rows).sum(1))


def _l2(rows: np.ndarray) -> np.ndarray:
    """Euclidean norm."""
    return np.asarray(np.sqrt(np.square(rows).sum(1)))


def _geometric_median(rows: np.ndarray) -> np.ndarray:
    """Sum of distances to the other channels: one that many resemble can be replaced by them (FPGM, CVPR 2019)."""
    squares = np.square(rows).sum(1)
    distances: np.ndarray = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0))
    return np.asarray(distances.sum(1))


CRITERIA: dict[str, Criterion] = {"l1": _l1, "l2": _l2, "geometric-median": _geometric_median}
"""Criteria that look at the weights of a channel."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What importance is judged by.

    ``weights`` are the float constants, and what integer constants stand for: behind ``share-weights`` a weight is what
    its indices look up. ``saliencies`` are those of :func:`~octavo.passes.training.gradients.saliencies` of these
    weights; ``magnitudes`` hold the mean magnitude (float64) of every index of an axis of an activation.
    """

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    weights: Mapping[Value, np.ndarray] = field(default_factory=dict)
    saliencies: Mapping[Value, np.ndarray] = field(default_factory=dict)
    magnitudes: Mapping[Axis, np.ndarray] = field(default_factory=dict)


def gather_evidence(
    graph: Graph, channels: Channels, method: Importance, batches: Batches | None, random: np.random.Generator
) -> Evidence:
    """What ``method`` needs to know of the graph as it is now.

    Raises:
        PassError: it needs calibration data, and there is none.
        CalibrationError: the data is empty, does not fit, or leads to values that are not finite.
    """
    weights = {node.output: weight for node in graph.nodes if (weight := _weight(node)) is not None}
    if method not in ("taylor", "activation"):
        return Evidence(random, weights)
    if batches is None:
        hint = "give calibration inputs, or an importance that looks at weights alone: l1, l2, ..."
        raise PassError(f"importance {method} needs calibration data, and there is none", hint=hint)
    if method == "taylor":
        return Evidence(random, weights, saliencies=_saliencies(graph, weights, batches))
    return Evidence(random, weights, magnitudes=_magnitudes(graph, channels, batches))


def _weight(node: Node) -> np.ndarray | None:
    """A float constant, or what a node makes of constants of which one holds integers."""
    operands = [value.op for value in node.inputs]
    if len(node.outputs) != 1 or not node.output.type.dtype.is_float:
        return None
    if isinstance(node.op, Constant):
        return node.op.data.numpy()
    constants = [op for op in operands if isinstance(op, Constant)]
    if len(constants) != len(operands) or all(op.data.dtype.is_float for op in constants):
        return None
    return to_numpy(run_node(node, [op.run() for op in constants])[0])


def _saliencies(graph: Graph, weights: Mapping[Value, np.ndarray], batches: Batches) -> dict[Value, np.ndarray]:
    """Those of all weights, in a copy of the graph that holds them as they are."""
    dense = graph.clone()
    owners = dict(zip(dense.values(), graph.values(), strict=True))
    for twin, value in list(owners.items()):
        if value in weights and not isinstance(value.op, Constant):
            stored = dense.constant(Tensor.of(weights[value]), before=twin.producer)
            dense.replace(twin, stored)
            owners[stored] = value
    return {owners[twin]: found for twin, found in saliencies(dense, batches).items()}


def score_units(channels: Channels, group: ChannelGroup, method: Importance, evidence: Evidence) -> np.ndarray:
    """The importance (float64) of every unit of a group, 1 on average, so that groups can be compared.

    ``l1``, ``l2``, ``geometric-median``: what a unit touches in each constant is scored by itself, divided by the mean
    over the constant's channels, and averaged over constants; so the channel's own weights count, and those of the
    layers that read it. ``batch-norm`` takes the magnitudes of batch normalization's scales (Liu et al., "Learning
    Efficient Convolutional Networks through Network Slimming", ICCV 2017), or l1 where there are none. ``taylor`` is
    the sum of ``|w * dL/dw|`` over all weights of a unit (Molchanov et al., "Importance Estimation for Neural Network
    Pruning", CVPR 2019), ``activation`` the mean magnitude of what the reading layers get of a unit. ``random`` is
    what others should beat.
    """
    if method == "random":
        return evidence.random.random(len(group.units)) * 2
    if method == "taylor":
        lost = evidence.saliencies
        places = [(axis, _rows(lost[axis[0]], axis[1])) for axis in _weight_axes(group, evidence) if axis[0] in lost]
        return _normal(sum(_scores(channels, group, _l1, places), np.zeros(len(group.units))))
    if method == "activation":
        means = evidence.magnitudes
        return _average(channels, group, _l1, [(axis, means[axis][:, None]) for axis in group.axes if axis in means])
    weights = [(axis, _rows(evidence.weights[axis[0]], axis[1])) for axis in _weight_axes(group, evidence)]
    if method == "batch-norm":
        scales = [(axis, rows) for axis, rows in weights if is_norm_scale(axis[0])]
        if scales:
            return _average(channels, group, _l1, scales)
        method = "l1"
    return _average(channels, group, CRITERIA[method], [place for place in weights if place[0][0].type.rank > 1])


def _weight_axes(group: ChannelGroup, evidence: Evidence) -> Sequence[Axis]:
    """Where units appear in weights. What indices look up counts if channels are among the indices."""
    own = {value for value, _ in group.parameters}
    return [
        (value, axis)
        for value, axis in group.axes
        if value in evidence.weights and (value in own or not own.isdisjoint(_indices(value)))
    ]


def _indices(value: Value) -> Sequence[Value]:
    operands = value.producer.inputs if value.producer else ()
    return [operand for operand in operands if not operand.type.dtype.is_float]


def _rows(array: np.ndarray, axis: int) -> np.ndarray:
    """(indices of an axis, all elements at each) in float64."""
    rows = np.moveaxis(array.astype(np.float64), axis, 0)
    return rows.reshape(len(rows), -1)


def _average(
    channels: Channels, group: ChannelGroup, criterion: Criterion, places: Iterable[tuple[Axis, np.ndarray]]
) -> np.ndarray:
    return _normal(sum(map(_normal, _scores(channels, group, criterion, places)), np.zeros(len(group.units))))


def _normal(scores: np.ndarray) -> np.ndarray:
    """Scores that are 1 on average; all alike where nothing tells units apart."""
    mean = float(scores.mean())
    return scores / mean if mean > 0 else np.ones(len(scores))


def _scores(
    channels: Channels, group: ChannelGroup, criterion: Criterion, places: Iterable[tuple[Axis, np.ndarray]]
) -> Iterator[np.ndarray]:
    """The criterion of each axis, whose rows are given, summed over the indices of a unit."""
    for axis, rows in places:
        units = channels.unit_of[axis]
        mine = np.isin(units, group.units)
        scores = criterion(rows[mine])
        yield np.bincount(np.searchsorted(group.units, units[mine]), scores, len(group.units))


def _read_axes(group: ChannelGroup, stored: set[Value]) -> Sequence[Axis]:
    """The activations of a group that layers with weights read; all of them where none does."""
    floats = [axis for axis in group.axes if axis[0] not in stored and axis[0].type.dtype is DType.F32]
    return [axis for axis in floats if _is_read(axis[0])] or floats


def _is_read(value: Value) -> bool:
    return any(node.op.rule is Quantization.WEIGHTED and position == 0 for node, position in value.uses)


def _magnitudes(graph: Graph, channels: Channels, batches: Batches) -> dict[Axis, np.ndarray]:
    """The mean magnitude of every index of the axes of activations, over all batches."""
    wanted: dict[Value, list[int]] = {}
    stored = stored_values(graph)
    for value, axis in {axis for group in channels.groups for axis in _read_axes(group, stored)}:
        wanted.setdefault(value, []).append(axis)
    sums = {(value, axis): np.zeros(len(channels.unit_of[value, axis])) for value in wanted for axis in wanted[value]}
    number = 0

    def look(value: Value, tensor: torch.Tensor) -> None:
        for axis in wanted.get(value, ()):
            sums[value, axis] += np.abs(_rows(to_numpy(tensor), axis)).mean(1)

    for number, feeds in enumerate(batches, 1):  # noqa: B007 - how many there were
        run_graph(graph, feeds, look)
    if not number:
        raise CalibrationError("the calibration data is empty", expected="at least one batch")
    for (value, _), total in sums.items():
        if not np.isfinite(total).all():
            raise CalibrationError(f"%{value.name} is not finite", hint="check the data and the weights")
    return {axis: total / number for axis, total in sums.items()}
