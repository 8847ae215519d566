"""K-means of numbers: Lloyd's algorithm on the line, where a cluster is an interval of the sorted values.

Sorted once, with running sums, a step costs a binary search per cluster instead of a look at every value, and ends with
the same centroids as a step over all values (Lloyd, "Least Squares Quantization in PCM", IEEE Transactions on
Information Theory 28, 1982).
"""

from __future__ import annotations

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
    """At most ``count`` clusters of finite ``values`` (any shape, not empty), none of them empty.

    Values of at most ``count`` different numbers are their own centroids. Else Lloyd's steps go on until no value
    changes its cluster, ``iterations`` at most. A cluster that runs empty starts again at the end of the one with the
    largest error. Equal arguments give equal clusters; ``random`` is drawn from by ``random`` initialization alone.
    """
    different, places = np.unique(values.astype(np.float64), return_inverse=True)
    if len(different) <= count:
        return Clusters(different, places.reshape(values.shape))
    line = _Line.of(different, np.bincount(places.reshape(-1)))
    centroids = line.first(count, initialization, random)
    bounds = line.bounds(centroids)
    for _ in range(iterations):
        centroids = line.means(bounds, centroids)
        moved = line.bounds(centroids)
        if np.array_equal(moved, bounds):
            empty = np.flatnonzero(np.diff(bounds) == 0)
            if not len(empty):
                break
            centroids[empty[0]] = line.worst(bounds, centroids)
            centroids.sort()
            moved = line.bounds(centroids)
        bounds = moved
    used = np.diff(bounds) > 0
    labels = np.repeat(np.cumsum(used) - 1, np.diff(bounds))[places]
    return Clusters(line.means(bounds, centroids)[used], labels.reshape(values.shape))


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

    def worst(self, bounds: np.ndarray, centroids: np.ndarray) -> float:
        """The value farthest from its centroid in the interval of the largest squared error."""
        errors = self.counts * np.square(self.values - np.repeat(centroids, np.diff(bounds)))
        of_interval = np.diff(np.concatenate([[0.0], np.cumsum(errors)])[bounds])
        interval = int(np.argmax(of_interval))
        ends = self.values[[bounds[interval], bounds[interval + 1] - 1]]
        return float(ends[np.argmax(np.abs(ends - centroids[interval]))])
