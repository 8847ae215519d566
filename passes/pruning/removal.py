"""Removing channels: constants lose rows and columns, ops adapt, types follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...ir.constants import Tensor
from ...ir.errors import PassError
from ...ir.graph import Graph, Node, Value
from ...ir.ops.constant import Constant
from ...ir.types import Shape
from .groups import Axis, Channels

KeptAxes = dict[Axis, np.ndarray]
"""The indices that remain of every axis that loses some."""


def kept_axes(channels: Channels, units: np.ndarray) -> KeptAxes:
    """What remains of each axis when ``units`` (int64) go."""
    stays = channels.stays(units)
    left = {axis: np.flatnonzero(stays[unit_of]) for axis, unit_of in channels.unit_of.items()}
    return {axis: kept for axis, kept in left.items() if len(kept) < len(channels.unit_of[axis])}


def remove_units(graph: Graph, channels: Channels, units: np.ndarray) -> None:
    """Remove units from the graph that ``channels`` was found in; afterwards ``channels`` describes it no longer.

    Raises:
        PassError: a unit is fixed, or nothing would remain of an axis; the graph is unchanged then.
    """
    kept = kept_axes(channels, units)
    _check(channels, units, kept)
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            _shrink_constant(node, kept)
        else:
            _shrink(node, kept)


def zero_units(graph: Graph, channels: Channels, units: np.ndarray) -> None:
    """Set to zero, in every float constant, what :func:`remove_units` would take away.

    The same function of the inputs, as long as sums over removed channels have a constant as a factor: the weights of
    the layer that reads them. In a product of two activations, such as attention scores, what is made from zeros takes
    part, so it must be zero: behind a sigmoid it is not. Weights that are looked up, as behind ``share-weights``, have
    no zeros of their own and stay.
    """
    for (value, axis), left in kept_axes(channels, units).items():
        if isinstance(value.op, Constant) and value.producer is not None and value.type.dtype.is_float:
            array = value.op.data.numpy().copy()
            gone = np.setdiff1d(np.arange(array.shape[axis]), left)
            array[(slice(None),) * axis + (gone,)] = 0
            value.producer.op = replace(value.op, data=Tensor.of(array))


def _check(channels: Channels, units: np.ndarray, kept: KeptAxes) -> None:
    for unit in units:
        if int(unit) in channels.reasons:
            raise PassError("a channel cannot be removed", where=channels.reasons[int(unit)])
    for (value, axis), left in kept.items():
        if not len(left):
            raise PassError(f"no channel of axis {axis} of %{value.name} would remain")


def _shrink_constant(node: Node, kept: KeptAxes) -> None:
    assert isinstance(node.op, Constant)
    value, array = node.output, node.op.data.numpy()
    axes = _of(value, kept)
    if axes:
        for axis, left in axes.items():
            array = np.take(array, left, axis)
        node.op = replace(node.op, data=Tensor.of(np.ascontiguousarray(array)))
        value.type = value.type.with_shape(array.shape)


def _shrink(node: Node, kept: KeptAxes) -> None:
    inputs, outputs = ([_of(value, kept) for value in values] for values in (node.inputs, node.outputs))
    if not any(inputs) and not any(outputs):
        return
    shapes = [_shape(value, axes) for value, axes in zip(node.outputs, outputs, strict=True)]
    node.op = node.op.narrowed(inputs, outputs, shapes)
    types = node.op.infer(*(value.type for value in node.inputs))
    for value, type, shape in zip(node.outputs, types, shapes, strict=True):
        assert type.shape == shape, f"{node.where}: {type.shape} instead of {shape}"
        value.type = type


def _of(value: Value, kept: KeptAxes) -> dict[int, np.ndarray]:
    return {axis: kept[value, axis] for axis in range(value.type.rank) if (value, axis) in kept}


def _shape(value: Value, axes: dict[int, np.ndarray]) -> Shape:
    return tuple(len(axes[axis]) if axis in axes else size for axis, size in enumerate(value.type.shape))
