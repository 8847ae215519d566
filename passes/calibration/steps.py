"""Scales of weights by least squares: with few bits the largest weight must not say how coarse the grid is.

For integers ``q`` in the place of magnitudes ``m``, the scale of least squared error is ``m.q / q.q``, and what it
explains of ``m.m`` is ``(m.q)**2 / q.q``. So of the integers that some scales give, the ones that explain most are
taken, and rounding and scaling alternate from there (as in Lloyd's algorithm, for a grid of even steps; for the three
values of a ternary weight this is the problem of Li and Liu, "Ternary Weight Networks", 2016).
"""

from __future__ import annotations

import numpy as np

LEAST_SCALE = float(np.finfo(np.float32).tiny)
"""The smallest scale: the smallest normal float32. Below it scales lose bits, and at last they are zero."""

_SHARES = 0.93 ** np.arange(48)
"""Scales to try, as shares of the one that holds the largest weight: down to one thirtieth of it."""

_ALTERNATIONS = 4


def least_squares_scale(weight: np.ndarray, axis: int | None, largest: int) -> np.ndarray:
    """Scales (float64), shape () or (channels,), of little squared error on the grid ``-largest`` to ``largest``.

    The error is at most that of the scale that maps the largest magnitude to ``largest``.
    """
    rows = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    magnitudes = np.abs(rows)
    widest = magnitudes.max(1).astype(np.float64) / largest
    widest = np.where(widest > 0, np.maximum(widest, LEAST_SCALE), 1.0)
    best, most = widest, np.full(len(rows), -1.0)
    for share in _SHARES:
        scale, explained = _fit(magnitudes, np.maximum(widest * share, LEAST_SCALE), largest)
        best = np.where(explained > most, scale, best)
        most = np.maximum(most, explained)
    for _ in range(_ALTERNATIONS):
        best, _ = _fit(magnitudes, best, largest)
    return best if axis is not None else best[0]


def binary_scale(weight: np.ndarray, axis: int | None) -> np.ndarray:
    """Scales (float64), shape () or (channels,), of least squared error for signs alone: the mean magnitude.

    A channel of zeros gets the smallest scale, since its signs are not zero.
    """
    axes = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    mean: np.ndarray = np.maximum(np.abs(weight.astype(np.float64)).mean(axis=axes), LEAST_SCALE)
    return mean


def _fit(magnitudes: np.ndarray, scale: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """The best scale of each row for the integers that ``scale`` gives, and the energy that it explains."""
    integers = np.minimum(np.rint(magnitudes / scale[:, None].astype(np.float32)), np.float32(largest))
    product = np.einsum("ij,ij->i", magnitudes, integers, dtype=np.float64)
    square = np.einsum("ij,ij->i", integers, integers, dtype=np.float64)
    used = square > 0
    square = np.where(used, square, 1.0)
    return np.where(used, np.maximum(product / square, LEAST_SCALE), scale), np.where(used, product**2 / square, 0.0)
