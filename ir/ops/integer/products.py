"""Exact integer products: matrix multiplication, convolution and its transpose, as int64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..conv import Conv, ConvTranspose


def integer_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """numpy.matmul of integers, as int64. Exact: float64 holds every sum of int8 products below 2**53."""
    return np.asarray(np.rint(np.matmul(a.astype(np.float64), b.astype(np.float64))), np.int64)


def _index(*trailing: int | slice) -> tuple[Any, ...]:
    """An index into the trailing axes."""
    return (Ellipsis, *trailing)


def integer_conv(x: np.ndarray, weight: np.ndarray, op: Conv) -> np.ndarray:
    """The cross-correlation of centered integers, as int64: one product of matrices per kernel tap and group."""
    x = np.pad(x, ((0, 0), (0, 0), *op.padding))
    extents = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[2:], weight.shape[2:], op.stride, op.dilation, strict=True)
    ]
    outputs, inputs = weight.shape[0] // op.groups, weight.shape[1]
    total = np.zeros((x.shape[0], op.groups, outputs, *extents), np.int64)
    grouped = x.reshape(x.shape[0], op.groups, inputs, *x.shape[2:])
    taps = weight.reshape(op.groups, outputs, inputs, *weight.shape[2:])
    for tap in itertools.product(*(range(k) for k in weight.shape[2:])):
        window = tuple(
            slice(t * d, t * d + (e - 1) * s + 1, s)
            for t, d, e, s in zip(tap, op.dilation, extents, op.stride, strict=True)
        )
        part = grouped[_index(*window)].reshape(x.shape[0], op.groups, inputs, -1)
        total += integer_matmul(taps[_index(*tap)], part).reshape(total.shape)
    return total.reshape(x.shape[0], weight.shape[0], *extents)


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
