"""Ranges that trade clipping for resolution, found on a histogram."""

from __future__ import annotations

import numpy as np

from ..quantize import activation_grid
from .histogram import Histogram

Bounds = tuple[float, float]


def percentile_bounds(histogram: Histogram, percent: float) -> Bounds:
    """The central ``percent`` of all elements: half of the rest is clipped on each side."""
    tail = (1.0 - percent / 100.0) / 2.0
    return histogram.quantile(tail), histogram.quantile(1.0 - tail)


def mse_bounds(histogram: Histogram, symmetric: bool) -> Bounds:
    """The bounds with the least mean squared error of quantizing to 8 bits.

    Both ends shrink in steps of 1 %, in turn until neither moves (coordinate descent).
    """
    used = histogram.counts > 0
    centers, weights = histogram.centers()[used], histogram.counts[used].astype(np.float64)

    def error(bounds: Bounds) -> float:
        grid = activation_grid(bounds, symmetric)
        lowest = -127 if symmetric else -128
        step = np.clip(np.rint(centers / grid.scale), lowest - grid.zero_point, 127 - grid.zero_point)
        return float((weights * np.square(centers - step * grid.scale)).sum())

    fractions = np.linspace(1.0, 0.02, 99)
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if symmetric:
        largest = max(-low, high)
        best = min(((-largest * f, largest * f) for f in fractions), key=error)
        return float(best[0]), float(best[1])
    bounds = (low, high)
    for _ in range(4):
        before = bounds
        bounds = min(((bounds[0], high * f) for f in fractions), key=error) if high else bounds
        bounds = min(((low * f, bounds[1]) for f in fractions), key=error) if low else bounds
        if bounds == before:
            break
    return float(bounds[0]), float(bounds[1])


def entropy_bounds(histogram: Histogram, symmetric: bool) -> Bounds:
    """The bounds whose quantized distribution has the least Kullback-Leibler divergence from the real one.

    Migacz, "8-bit inference with TensorRT", GTC 2017. The threshold is found on magnitudes, for 128 levels, or 256
    where all elements have one sign; the result is cut to the range seen.
    """
    one_sided = histogram.low >= 0.0 or histogram.high <= 0.0
    levels = 256 if one_sided and not symmetric else 128
    magnitudes = histogram.magnitudes()
    magnitudes = magnitudes[: int(np.flatnonzero(magnitudes)[-1]) + 1]
    # Exact zeros (half of what a relu makes) are representable anyway and must not weigh, as in TensorRT.
    magnitudes[0] = magnitudes[min(1, len(magnitudes) - 1)]
    threshold = _entropy_bins(magnitudes, levels) * histogram.width
    if symmetric:
        largest = min(threshold, max(-histogram.low, histogram.high))
        return -largest, largest
    return max(histogram.low, -threshold), min(histogram.high, threshold)


def _entropy_bins(counts: np.ndarray, levels: int) -> int:
    """How many leading bins to keep."""
    if len(counts) <= levels:
        return len(counts)
    stride = max((len(counts) - levels) // 256, 1)
    candidates = {*range(levels, len(counts), stride), len(counts)}
    # Of equal divergences the widest range wins.
    divergences = {keep: _divergence(counts, keep, levels) for keep in candidates}
    best: int = min(divergences, key=lambda keep: (divergences[keep], -keep))
    return best


def _divergence(counts: np.ndarray, keep: int, levels: int) -> float:
    """KL divergence of the first ``keep`` bins, clipped elements in the last, from their ``levels``-level form."""
    kept = counts[:keep]
    reference = kept.copy()
    reference[-1] += counts[keep:].sum()
    starts = np.arange(levels) * keep // levels
    sums = np.add.reduceat(kept, starts)
    filled = np.add.reduceat((reference > 0).astype(np.float64), starts)
    average = np.divide(sums, filled, out=np.zeros(levels), where=filled > 0)
    sizes = np.diff(np.append(starts, keep))
    quantized = np.where(reference > 0, np.repeat(average, sizes), 0.0)
    if not quantized.sum():
        return float("inf")
    p, q = reference / reference.sum(), quantized / quantized.sum()
    both = p > 0
    # A bin that only clipped elements fill has no quantized mass; a tiny one keeps the divergence finite.
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))).sum())
