"""Cheap arithmetic that is exact for all of the 256 values that a pixel may have. No tvm.

What normalization and quantization make of a pixel is a staircase. Both functions here try what they propose with every
pixel value, and propose nothing when one of them would come out differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.ops.integer import QImage
from .base import Array

PIXELS = np.arange(256, dtype="float32")
#: A line that climbs from the least to the greatest byte within a pixel is no steeper, nor gets further than this.
STEEPEST, FURTHEST = 512.0, 2.0**20
#: Thirds that the range of factors loses: until what is left is less than a float32 can tell.
SEARCH = 80
#: More than float64 rounds away, and less than what a float32 can tell.
MARGIN = 2.0**-50


def fit_lines(op: QImage, channels: int) -> dict[str, Array] | None:
    """``factor`` and ``shift``, float32[channels], so that ``rint(fma(x, factor, shift))`` saturates to the answer.

    There is no such line where the stairs are uneven: when quantization rounds what lies halfway between two bytes,
    as for pixels of -1..1 on a grid of 2 / 255, it is chance where the numbers before fall.
    """
    found = [_fit_line(row) for row in op.table(channels)]
    lines = [line for line in found if line is not None]
    if len(lines) < len(found):
        return None
    return {"factor": np.array([a for a, _ in lines]), "shift": np.array([b for _, b in lines])}


def _fit_line(row: Array) -> tuple[np.float32, np.float32] | None:
    """The line of one channel, int8[256], with the most room between the corners of the stairs above and below."""
    pixels, stairs = PIXELS.astype("float64"), row.astype("float64")
    # At the ends of the range of a byte a line may go on: what narrows saturates.
    low = np.where(row == -128, -FURTHEST, stairs - 0.5)
    high = np.where(row == 127, FURTHEST, stairs + 0.5)

    def room(factor: float) -> float:
        return float((high - factor * pixels).min() - (low - factor * pixels).max())

    # The room is concave in the factor.
    left, right = -STEEPEST, STEEPEST
    for _ in range(SEARCH):
        first, second = left + (right - left) / 3, right - (right - left) / 3
        left, right = (first, right) if room(first) < room(second) else (left, second)
    slope = np.float32((left + right) / 2)
    exact = float(slope) * pixels
    shift = np.float32(((high - exact).min() + (low - exact).max()) / 2)
    ends = _rounded(exact + shift)
    same = all(np.array_equal(np.clip(np.rint(end), -128, 127), row) for end in ends)
    return (slope, shift) if same and np.abs(ends).max() <= 2 * FURTHEST else None


def reciprocal(divisors: Sequence[float]) -> tuple[Array, Array]:
    """``1 / d`` as the sum of two float32, the second of which is what the first one lacks."""
    exact = 1.0 / np.asarray(divisors, "float32").astype("float64")
    high = exact.astype("float32")
    return high, (exact - high).astype("float32")


def steps_divide(op: QImage) -> bool:
    """Whether ``fma(x, high, f32(x * low))``, of `reciprocal`, is each quotient that `op` takes of a pixel."""
    x = np.broadcast_to(PIXELS[:, np.newaxis], (256, max(len(op.mean), len(op.std))))
    with np.errstate(all="ignore"):
        for offset, divisors in (((0.0,), (op.scale,)), (op.mean, op.std), ((0.0,), op.out.scale)):
            x = x - np.asarray(offset, "float32")
            quotient = x / np.asarray(divisors, "float32")
            if not _divides(x, divisors, quotient):
                return False
            x = quotient
    return bool(np.abs(x).max() <= FURTHEST)


def _divides(x: Array, divisors: Sequence[float], quotient: Array) -> bool:
    high, low = reciprocal(divisors)
    ends = _rounded(x.astype("float64") * high + x * low)
    return all(np.array_equal(end, quotient) for end in ends)


def _rounded(sums: Array) -> tuple[Array, Array]:
    """Two float32 between which those lie that float64 `sums`, whose products are exact, would be if rounded once."""
    below, above = ((sums * (1 + margin)).astype("float32") for margin in (-MARGIN, MARGIN))
    return below, above
