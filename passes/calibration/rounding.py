"""Rounding weights so that errors cancel where they are summed.

Rounding every weight to the nearest step leaves each output channel a sum of errors, and what the channel reads has a
mean (after a ReLU all of it is positive): the output shifts. SQuant (Guo et al., "SQuant: On-the-Fly Data-Free
Quantization via Diagonal Hessian Approximation", ICLR 2022) rounds a few weights the other way, those nearest the
middle between two steps, so that the errors of each kernel, and then those of each output channel, sum to at most
half a step. It needs no data. A depthwise kernel, whose inputs all have one mean, gains most.
"""

from __future__ import annotations

import numpy as np


def balanced(grid: np.ndarray) -> np.ndarray:
    """Integers next to ``grid`` (float64 [outputs, channels, taps], in steps), with balanced errors.

    No integer lies outside the range that rounding every element up or down can reach.
    """
    outputs, channels, taps = grid.shape
    rounded: np.ndarray = np.rint(grid)
    if taps > 1:
        flat = (grid - rounded).reshape(outputs * channels, taps)
        rounded += _flips(flat).reshape(grid.shape)
    error = grid - rounded
    kernels = _flips(error.sum(axis=2))
    # In each kernel chosen, the weight that lies farthest to the side it moves to.
    taps_chosen = np.argmax(error * kernels[:, :, None], axis=2)
    moved = np.take_along_axis(rounded, taps_chosen[:, :, None], axis=2) + kernels[:, :, None]
    np.put_along_axis(rounded, taps_chosen[:, :, None], moved, axis=2)
    return rounded


def _flips(error: np.ndarray) -> np.ndarray:
    """For each row of errors, the steps (-1, 0, 1) that bring their sum to at most a half at the least cost."""
    excess = np.rint(error.sum(axis=1))
    direction = np.sign(excess)[:, None]
    order = np.argsort(-error * direction, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(error.shape[1]), error.shape), axis=1)
    steps: np.ndarray = np.where(rank < np.abs(excess)[:, None], direction, 0.0)
    return steps
