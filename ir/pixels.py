"""The arithmetic that makes a network's input of pixels; nothing but numpy, so that running a bundle can use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def normalize(pixels: np.ndarray, scale: float, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """``(pixels / scale - mean) / std`` in float32, each operation rounded by itself.

    ``pixels`` are [..., channels] of any number type; ``mean`` and ``std`` hold one number for each channel, or one
    for all.
    """
    with np.errstate(over="ignore"):  # of means and deviations that no images have
        centered = pixels.astype(np.float32) / np.float32(scale) - np.asarray(mean, np.float32)
        return np.asarray(centered / np.asarray(std, np.float32))
