"""Rounding weights so that errors cancel where they are summed.

Rounding every weight to the nearest step leaves each output channel a sum of errors, and what the channel reads has a
mean (after a ReLU all of it is positive): the output shifts. SQuant (Guo et al., "SQuant: On-the-Fly Data-Free
Quantization via Diagonal Hessian Approximation", ICLR 2022) rounds a few weights the other way, those nearest the
middle between two steps, so that the errors of each kernel, and then those of each output channel, sum to at most
half a step. It needs no data. A depthwise kernel, whose inputs all have one mean, gains most.

Equal weights must stay equal: they are one entry of a codebook, or zeros that a pass put there. Folding has made plain
constants of codebooks, and scaled each channel by a factor of its own, so nothing tells such weights from others but
that they are equal. So a weight moves only if no other one of its scale equals it. Trained float weights hardly ever
do, and where some do, the others balance their errors.
"""

from __future__ import annotations

import numpy as np


def balanced(grid: np.ndarray, movable: np.ndarray | None = None) -> np.ndarray:
    """Integers next to ``grid`` (float64 [outputs, channels, taps], in steps), with balanced errors.

    Elements that are not ``movable`` (bool, shaped as ``grid``) go to the nearest integer. No integer lies outside the
    range that rounding every element up or down can reach.
    """
    outputs, channels, taps = grid.shape
    free = np.ones(grid.shape, bool) if movable is None else movable
    rounded: np.ndarray = np.rint(grid)
    if taps > 1:
        rows = outputs * channels, taps
        rounded += _flips((grid - rounded).reshape(rows), free.reshape(rows)).reshape(grid.shape)
    error = grid - rounded
    sums = error.sum(axis=2)
    # In each kernel chosen, the weight that lies farthest to the side it moves to.
    toward = np.where(free, error * _direction(sums)[:, :, None], 0.0)
    taps_chosen = np.argmax(toward, axis=2)[:, :, None]
    kernels = _flips(sums, np.take_along_axis(toward, taps_chosen, axis=2)[:, :, 0] > 0)
    moved = np.take_along_axis(rounded, taps_chosen, axis=2) + kernels[:, :, None]
    np.put_along_axis(rounded, taps_chosen, moved, axis=2)
    return rounded


def unrepeated(rows: np.ndarray) -> np.ndarray:
    """Which elements (bool) no other one in their row of a matrix equals."""
    order = np.argsort(rows, axis=1)
    ordered = np.take_along_axis(rows, order, axis=1)
    differs = np.ones((len(rows), rows.shape[1] + 1), bool)
    differs[:, 1:-1] = ordered[:, 1:] != ordered[:, :-1]
    found = np.empty(rows.shape, bool)
    np.put_along_axis(found, order, differs[:, 1:] & differs[:, :-1], axis=1)
    return found


def _flips(error: np.ndarray, free: np.ndarray) -> np.ndarray:
    """For each row of errors, the steps (-1, 0, 1) that bring their sum to at most a half at the least cost.

    Only ``free`` elements move, and only to the side of their error; where they are too few, more of the sum is left.
    """
    excess = np.abs(np.rint(error.sum(axis=1)))
    direction = _direction(error)
    toward = np.where(free, error * direction, 0.0)
    order = np.argsort(-toward, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(error.shape[1]), error.shape), axis=1)
    steps: np.ndarray = np.where((rank < excess[:, None]) & (toward > 0), direction, 0.0)
    return steps


def _direction(error: np.ndarray) -> np.ndarray:
    """The side (-1, 0, 1) that rows of errors lean to by more than half a step, shape (rows, 1)."""
    side: np.ndarray = np.sign(np.rint(error.sum(axis=1)))[:, None]
    return side
