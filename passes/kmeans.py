"""K-means of numbers: Lloyd's algorithm on the line, where a cluster is an interval of the sorted values.

Sorted once, with running sums, a step costs a binary search per cluster instead of a look at every value, and ends with
the same centroids as a step over all values (Lloyd, "Least Squares Quantization in PCM", IEEE Transactions on
Information Theory 28, 1982).

Lloyd's steps never fill a cluster that is empty, and evenly spaced ones are nearly all empty when one value lies far
out. So where they end, intervals of the largest error are split until there are as many as asked for, and they go on.
Every step and every split lowers the error.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

Initialization = Literal["linear", "density", "random"]
"""First centroids: evenly over the range, evenly over the sorted values, or values drawn at random."""


@dataclass(frozen=True)
class Clusters:
    """``centroids`` (float64 [k], ascending), and ``labels`` (int64, shaped as the values): the centroid of each."""

    centroids: np.ndarray
    labels: np.ndarray


def cluster(
    values: np.ndarray, count: int, initialization: Initialization, iterations: int, random: np.random.Generator
) -> Clusters:
    """``count`` clusters of finite ``values`` (any shape, not empty), none of them empty.

    Values of at most ``count`` different numbers are their own centroids. Else Lloyd's steps go on until no value
    changes its cluster and none is empty, ``iterations`` at most. Equal arguments give equal clusters; ``random`` is
    drawn from by ``random`` initialization alone.
    """
    different, places = np.unique(values.astype(np.float64), return_inverse=True)
    if len(different) <= count:
        return Clusters(different, places.reshape(values.shape))
    counts = np.bincount(places.reshape(-1))
    # Sums of what lies around zero lose least.
    line = _Line.of(different - np.median(values), counts)
    centroids = line.first(count, initialization, random)
    bounds = line.bounds(centroids)
    for _ in range(iterations):
        centroids = line.means(bounds, centroids)
        moved = line.bounds(centroids)
        if np.array_equal(moved, bounds):
            moved = line.filled(bounds)
            if np.array_equal(moved, bounds):
                break
        bounds = moved
    bounds = line.filled(bounds)
    labels = np.repeat(np.arange(count), np.diff(bounds))[places]
    return Clusters(_exact_means(different, counts, bounds), labels.reshape(values.shape))


def _exact_means(values: np.ndarray, counts: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The mean of each interval, none of which is empty; that of a single value is the value itself."""
    starts = bounds[:-1]
    first = values[starts]
    beyond = counts * (values - np.repeat(first, np.diff(bounds)))
    means: np.ndarray = first + np.add.reduceat(beyond, starts) / np.add.reduceat(counts, starts)
    return means


@dataclass(frozen=True)
class _Line:
    """Different ``values``, ascending, how many there are of each, and sums over those before the i-th."""

    values: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray) -> _Line:
        return cls(values, counts, np.cumsum([0, *counts]), np.cumsum([0.0, *(values * counts)]))

    def first(self, count: int, initialization: Initialization, random: np.random.Generator) -> np.ndarray:
        """The centroids to begin with, ascending."""
        match initialization:
            case "linear":
                return np.linspace(self.values[0], self.values[-1], count)
            case "density":
                wanted = (np.arange(count) + 0.5) / count * self.sizes[-1]
                middle: np.ndarray = self.values[np.searchsorted(self.sizes[1:], wanted)]
                return middle
            case "random":
                return np.sort(random.choice(self.values, count, replace=False))

    def bounds(self, centroids: np.ndarray) -> np.ndarray:
        """Where the interval of values nearest to each centroid starts, and where the last one ends."""
        middles = (centroids[1:] + centroids[:-1]) / 2
        return np.concatenate([[0], np.searchsorted(self.values, middles), [len(self.values)]])

    def means(self, bounds: np.ndarray, centroids: np.ndarray) -> np.ndarray:
        """The mean of each interval; an empty one keeps its centroid."""
        sizes = np.diff(self.sizes[bounds])
        means: np.ndarray = np.where(sizes > 0, np.diff(self.sums[bounds]) / np.maximum(sizes, 1), centroids)
        return means

    def filled(self, bounds: np.ndarray) -> np.ndarray:
        """As many intervals, none of them empty: those of the largest error are split in place of the empty ones."""
        used = np.unique(bounds)
        missing = len(bounds) - len(used)
        if not missing:
            return bounds
        ends: list[int] = used.tolist()
        heap: list[tuple[float, int, int]] = []

        def offer(start: int, stop: int) -> None:
            if stop - start > 1:
                heapq.heappush(heap, (-self._error(start, stop), start, stop))

        for start, stop in itertools.pairwise(used.tolist()):
            offer(start, stop)
        for _ in range(missing):
            _, start, stop = heapq.heappop(heap)
            middle = self._split(start, stop)
            ends.append(middle)
            offer(start, middle)
            offer(middle, stop)
        return np.sort(np.array(ends))

    def _error(self, start: int, stop: int) -> float:
        """The sum of squared differences from the mean of an interval."""
        return float(self.counts[start:stop] @ np.square(self._around_mean(start, stop)))

    def _split(self, start: int, stop: int) -> int:
        """Where to cut an interval of several values for the least error."""
        sums = np.cumsum(self.counts[start:stop] * self._around_mean(start, stop))[:-1]
        left = np.cumsum(self.counts[start:stop])[:-1]
        right = self.sizes[stop] - self.sizes[start] - left
        return start + 1 + int(np.argmax(np.square(sums) * (1 / left + 1 / right)))

    def _around_mean(self, start: int, stop: int) -> np.ndarray:
        values, counts = self.values[start:stop], self.counts[start:stop]
        around: np.ndarray = values - counts @ values / counts.sum()
        return around
