"""How channels flow through an op: which indices of which axes must be kept, or removed, together.

Every op states this for itself (:meth:`~octavo.ir.op.Op.channels`) as ties between axes of its operands and results. An
axis that an op does not mention must keep its size. What follows for a whole network is found by
``octavo.passes.pruning``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .types import Shape, TensorType

Kept = Mapping[int, np.ndarray]
"""The indices that remain, ascending, of each axis of one tensor that lost some."""


@dataclass(frozen=True)
class Slot:
    """One axis of an operand, or of a result, of a node."""

    is_result: bool
    position: int
    axis: int


def operand(position: int, axis: int) -> Slot:
    """Axis ``axis`` (not negative) of operand ``position``."""
    return Slot(False, position, axis)


def result(axis: int, position: int = 0) -> Slot:
    """Axis ``axis`` (not negative) of a result."""
    return Slot(True, position, axis)


@dataclass(frozen=True, eq=False)
class Tie:
    """Index ``left_at[i]`` of one axis and ``right_at[i]`` of another are kept or removed together (int64 arrays)."""

    left: Slot
    right: Slot
    left_at: np.ndarray
    right_at: np.ndarray


@dataclass(frozen=True, eq=False)
class Alternative:
    """A merged axis follows ``factor``, one of the axes it is made of; ``outer`` when that is the first of them."""

    ties: tuple[Tie, ...]
    factor: Slot
    outer: bool


@dataclass(frozen=True, eq=False)
class Flow:
    """What an op says of the axes of its operands and results.

    ``choices`` hold alternatives: of each, exactly one must be taken. ``reason`` tells why axes that are not mentioned
    keep their size.
    """

    ties: tuple[Tie, ...] = ()
    choices: tuple[tuple[Alternative, ...], ...] = ()
    reason: str = "needs all of it"


def same(left: Slot, right: Slot, size: int) -> Tie:
    """Two axes of one size, index by index."""
    at = np.arange(size)
    return Tie(left, right, at, at)


def part(whole: Slot, piece: Slot, start: int, size: int) -> Tie:
    """``piece`` is the stretch of ``size`` indices of ``whole`` from ``start`` on."""
    at = np.arange(size)
    return Tie(whole, piece, at + start, at)


def sized(shape: Shape) -> Iterator[tuple[int, int]]:
    """(axis, size) of the axes that can lose indices: a known size above 1."""
    return ((axis, size) for axis, size in enumerate(shape) if isinstance(size, int) and size > 1)


def alike(left: Slot, right: Slot, shape: Shape, axes: Sequence[int] | None = None) -> tuple[Tie, ...]:
    """Ties of two tensors of one shape on all axes, or on ``axes``; the slots' own axes do not count."""
    return tuple(
        same(Slot(left.is_result, left.position, axis), Slot(right.is_result, right.position, axis), size)
        for axis, size in sized(shape)
        if axes is None or axis in axes
    )


def broadcast(inputs: Sequence[TensorType], output: TensorType) -> Flow:
    """Operands that are aligned at their last axes: an axis follows the result's unless it is stretched from 1."""
    ties: list[Tie] = []
    for position, type in enumerate(inputs):
        lead = output.rank - type.rank
        ties += [same(operand(position, axis), result(axis + lead), size) for axis, size in sized(type.shape)]
    return Flow(tuple(ties))


def reshaped(before: Shape, after: Shape) -> Flow:
    """Row-major reshape: runs of axes with the same product correspond; a merged axis follows one of its factors."""
    ties: list[Tie] = []
    choices: list[tuple[Alternative, ...]] = []
    for left, right in _blocks(before, after):
        if len(left) == len(right) == 1:
            ties.append(same(operand(0, left[0]), result(right[0]), _size(before, left[0])))
        elif len(left) == 1 and len(right) > 1:
            choices.append(_factors(operand(0, left[0]), [result(axis) for axis in right], [after[a] for a in right]))
        elif len(right) == 1 and len(left) > 1:
            choices.append(_factors(result(right[0]), [operand(0, axis) for axis in left], [before[a] for a in left]))
    return Flow(tuple(ties), tuple(choices), "reshape mixes it with others")


def _size(shape: Shape, axis: int) -> int:
    size = shape[axis]
    assert isinstance(size, int)
    return size


def _blocks(before: Shape, after: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """Axes, sizes of 1 apart, of the smallest runs that have one product on both sides; none behind an unknown size."""
    sides = [[(axis, size) for axis, size in enumerate(shape) if size != 1] for shape in (before, after)]
    while sides[0] and sides[1]:
        if sides[0][0][1] == sides[1][0][1] and not isinstance(sides[0][0][1], int):
            del sides[0][0], sides[1][0]
            continue
        taken: tuple[list[int], list[int]] = ([], [])
        products = [1, 1]
        while products[0] != products[1] or not taken[0]:
            side = 0 if products[0] <= products[1] else 1
            if not sides[side]:
                return
            axis, size = sides[side].pop(0)
            if not isinstance(size, int):
                return
            taken[side].append(axis)
            products[side] *= size
        yield taken


def _factors(merged: Slot, factors: Sequence[Slot], sizes: Sequence[object]) -> tuple[Alternative, ...]:
    extents = [size for size in sizes if isinstance(size, int)]
    indices = np.unravel_index(np.arange(math.prod(extents)), extents)
    return tuple(
        Alternative((Tie(merged, factor, np.arange(len(at)), at),), factor, number == 0)
        for number, (factor, at) in enumerate(zip(factors, indices, strict=True))
    )


def grouped(weight: Slot, channels: Slot, groups: int, size: int) -> tuple[Tie, ...]:
    """``channels``, in ``groups`` runs of ``size``, follow an axis of the weight that counts within each run."""
    at = np.arange(groups * size)
    return (Tie(channels, weight, at, at % size),)
