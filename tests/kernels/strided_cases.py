"""Strided tensors for kernel tests: buffers with gaps, and numpy views of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from kernels.harness import Array


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to the last one of a strided tensor."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def strided(flat: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
    """The tensor of that shape with strides in elements, sharing memory with `flat`."""
    seen: Array = np.lib.stride_tricks.as_strided(flat, shape, [stride * flat.itemsize for stride in strides])
    return seen


def gapped(shape: Sequence[int], gap: int) -> tuple[int, ...]:
    """Row-major strides with `gap` elements behind every run of the last axis."""
    strides = [1]
    for axis in range(len(shape) - 1, 0, -1):
        strides.append(strides[-1] * shape[axis] + (gap if len(strides) == 1 else 0))
    return tuple(reversed(strides))
