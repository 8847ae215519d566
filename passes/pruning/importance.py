"""How much each channel matters, judged by the weights it touches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...ir.graph import Value
from ...ir.ops.constant import Constant
from ...ir.ops.norm import BatchNorm
from .groups import ChannelGroup, Channels

Criterion = Callable[[np.ndarray], np.ndarray]
"""From a matrix (channels, weights of each) to a score for each channel."""


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

METHODS = (*CRITERIA, "batch-norm", "random")


def score_units(channels: Channels, group: ChannelGroup, method: str, random: np.random.Generator) -> np.ndarray:
    """The importance (float64) of every unit of a group, 1 on average, so that groups can be compared.

    What a unit touches in each constant is scored by itself, divided by the mean over the constant's channels, and
    averaged over constants: the channel's own weights count, and so do those of the layers that read it. ``batch-norm``
    takes the magnitudes of batch normalization's scales (Liu et al., "Learning Efficient Convolutional Networks
    through Network Slimming", ICCV 2017), or l1 where there are none; ``random`` is what others should beat.
    """
    if method == "random":
        return random.random(len(group.units)) * 2
    if method == "batch-norm":
        scales = [place for place in group.parameters if _is_scale(place[0])]
        if scales:
            return _average(channels, group, _l1, scales)
        method = "l1"
    weights = [place for place in group.parameters if place[0].type.rank > 1]
    return _average(channels, group, CRITERIA[method], weights)


def _is_scale(value: Value) -> bool:
    return any(isinstance(node.op, BatchNorm) and position == 1 for node, position in value.uses)


def _average(
    channels: Channels, group: ChannelGroup, criterion: Criterion, places: list[tuple[Value, int]]
) -> np.ndarray:
    scores = np.zeros(len(group.units))
    for found in _scores(channels, group, criterion, places):
        scores += found / max(found.mean(), 1e-30)
    return scores / max(len(places), 1) if places else np.ones(len(group.units))


def _scores(
    channels: Channels, group: ChannelGroup, criterion: Criterion, places: list[tuple[Value, int]]
) -> Iterator[np.ndarray]:
    """The criterion of each constant, summed over the indices of a unit."""
    for value, axis in places:
        assert isinstance(value.op, Constant)
        rows = np.moveaxis(value.op.data.numpy().astype(np.float64), axis, 0)
        units = channels.unit_of[value, axis]
        mine = np.isin(units, group.units)
        scores = criterion(rows.reshape(len(rows), -1)[mine])
        yield np.bincount(np.searchsorted(group.units, units[mine]), scores, len(group.units))
