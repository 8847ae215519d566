"""Exact integer products: matrix multiplication, convolution and its transpose, as int64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..conv import Conv, ConvTranspose


def integer_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """numpy.matmul of integers, as int64."""
    dtype = exact_float(_magnitude(a).max(initial=0) * _magnitude(b).sum(-2).max(initial=0))
    return np.asarray(np.matmul(a.astype(dtype), b.astype(dtype)), np.int64)


def exact_float(reach: int) -> type[np.float32 | np.float64]:
    """A float type in which sums of integers are exact, in any order, with or without fused multiply-add.

    Args:
        reach: the largest sum of magnitudes. No partial sum is beyond it, and a float holds every integer up to two to
            the number of its mantissa's bits. So BLAS, which is many times as fast as integer loops, serves the judge.
    """
    return np.float32 if reach < 1 << 24 else np.float64


def _magnitude(x: np.ndarray) -> np.ndarray:
    """As int64: in int8 that of -128 would be -128."""
    return np.asarray(np.abs(x, dtype=np.int64))


def _index(*trailing: int | slice) -> tuple[Any, ...]:
    """An index into the trailing axes."""
    return (Ellipsis, *trailing)


def integer_conv(x: np.ndarray, weight: np.ndarray, op: Conv) -> np.ndarray:
    """The cross-correlation of centered integers, as int64: weights times the elements of all windows."""
    axes = tuple(range(2, x.ndim))
    dtype = exact_float(_magnitude(x).max(initial=0) * _magnitude(weight).sum((1, *axes)).max(initial=0))
    x = np.pad(x.astype(dtype), ((0, 0), (0, 0), *op.padding))
    reach = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], op.dilation, strict=True)]
    windows = sliding_window_view(x, reach, axes)[_index(*(slice(None, None, d) for d in op.dilation))]
    windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in op.stride))]
    extents = windows.shape[2 : x.ndim]
    rows = weight.astype(dtype).reshape(op.groups, weight.shape[0] // op.groups, -1)
    total = np.empty((x.shape[0], op.groups, rows.shape[1], math.prod(extents)), dtype)
    # From (N, C, *extents, *kernel) to (N, C, *kernel, *extents). One image at a time: its copy stays in the caches.
    for image, result in zip(np.moveaxis(windows, range(x.ndim, windows.ndim), axes), total, strict=True):
        np.matmul(rows, image.reshape(op.groups, rows.shape[2], -1), out=result)
    return total.astype(np.int64).reshape(x.shape[0], weight.shape[0], *extents)


def integer_conv_transpose(x: np.ndarray, weight: np.ndarray, op: ConvTranspose) -> np.ndarray:
    """The transposed convolution of centered integers, as int64: every tap adds its product at its place."""
    kernel, batch = weight.shape[2:], x.shape[0]
    inputs, outputs = weight.shape[0] // op.groups, weight.shape[1]
    full = [
        max((size - 1) * s + d * (k - 1) + 1, before + extent)
        for size, k, s, d, (before, _), extent in zip(
            x.shape[2:], kernel, op.stride, op.dilation, op.padding, _transposed_extents(x, weight, op), strict=True
        )
    ]
    total = np.zeros((batch, op.groups, outputs, *full), np.int64)
    grouped = x.reshape(batch, op.groups, inputs, -1)
    taps = weight.reshape(op.groups, inputs, outputs, *kernel)
    for tap in itertools.product(*(range(k) for k in kernel)):
        part = integer_matmul(taps[_index(*tap)].swapaxes(1, 2), grouped)
        window = tuple(
            slice(t * d, t * d + (size - 1) * s + 1, s)
            for t, d, size, s in zip(tap, op.dilation, x.shape[2:], op.stride, strict=True)
        )
        total[_index(*window)] += part.reshape(batch, op.groups, outputs, *x.shape[2:])
    crop = tuple(
        slice(before, before + extent)
        for (before, _), extent in zip(op.padding, _transposed_extents(x, weight, op), strict=True)
    )
    return np.asarray(total[_index(*crop)].reshape(batch, outputs * op.groups, *_transposed_extents(x, weight, op)))


def _transposed_extents(x: np.ndarray, weight: np.ndarray, op: ConvTranspose) -> list[int]:
    return [
        (size - 1) * s - sum(p) + d * (k - 1) + extra + 1
        for size, k, s, p, d, extra in zip(
            x.shape[2:], weight.shape[2:], op.stride, op.padding, op.dilation, op.output_padding, strict=True
        )
    ]
