"""A histogram of a stream of floats, whose range grows with the data."""

from __future__ import annotations

import math

import numpy as np

from .elements import Elements

BINS = 4096
_SMALLEST_EXPONENT = -100


class Histogram:
    """Counts in ``BINS`` bins of width ``2**exponent``, aligned to multiples of the width, over the range and 0.

    The width is the smallest power of two with which everything seen fits (so at least half of the bins are in use),
    and two bins merge exactly when it doubles: the counts do not depend on the order of the data.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.exponent = _SMALLEST_EXPONENT
        self.start = 0
        """Bin ``i`` holds ``[(start + i) * width, (start + i + 1) * width)``."""
        self.low = math.inf
        self.high = -math.inf

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def edges(self) -> np.ndarray:
        """The ``BINS + 1`` borders of the bins, float64."""
        return (self.start + np.arange(BINS + 1, dtype=np.float64)) * self.width

    def centers(self) -> np.ndarray:
        """The middles of the bins, float64."""
        return (self.start + np.arange(BINS, dtype=np.float64) + 0.5) * self.width

    def update(self, elements: Elements, *, weighted: bool = False) -> None:
        """Count a batch of elements; ``weighted``: each as often as its importance says."""
        self.low, self.high = min(self.low, elements.low), max(self.high, elements.high)
        self._grow()
        # 0 lies in the range, so an index has 13 bits.
        index = elements.bins(self.exponent) - self.start
        self.counts += np.bincount(index, elements.weights if weighted else None, minlength=BINS).astype(np.int64)

    def quantile(self, fraction: float) -> float:
        """The value below which ``fraction`` of the elements lie, linear inside a bin, within the extremes seen."""
        cumulative = np.concatenate([[0], np.cumsum(self.counts)])
        wanted = fraction * self.total
        bin = int(np.clip(np.searchsorted(cumulative, wanted, side="left") - 1, 0, BINS - 1))
        inside = (wanted - cumulative[bin]) / max(self.counts[bin], 1)
        value = (self.start + bin + min(max(inside, 0.0), 1.0)) * self.width
        return float(np.clip(value, self.low, self.high))

    def magnitudes(self) -> np.ndarray:
        """Counts of absolute values, by multiples of the width from 0."""
        absolute = self.start + np.arange(BINS)
        # The bin [-w, 0) mirrors [0, w).
        mirrored = np.where(absolute < 0, -absolute - 1, absolute)
        return np.bincount(mirrored, self.counts, minlength=1).astype(np.float64)

    def _grow(self) -> None:
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        exponent = self.exponent
        if high - low > BINS * math.ldexp(1.0, exponent):
            exponent = max(exponent, math.frexp((high - low) / BINS)[1] - 1)
        while _bin(high, exponent) - _bin(low, exponent) >= BINS:
            exponent += 1
        start = _bin(low, exponent)
        if (exponent, start) != (self.exponent, self.start):
            used = np.flatnonzero(self.counts)
            moved = ((self.start + used) >> (exponent - self.exponent)) - start
            counts = np.zeros(BINS, np.int64)
            np.add.at(counts, moved, self.counts[used])
            self.counts, self.exponent, self.start = counts, exponent, start


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))
