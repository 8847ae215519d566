"""Pooling windows over the trailing spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..channels import Flow, alike, operand, result
from ..errors import ModelError
from ..op import Cost, Op, Quantization, register_op
from ..types import DType, Shape, TensorType
from .conv import Padding, conv_extent, pad_spatial


@dataclass(frozen=True)
class Window(Op):
    """A sliding window over x (N, C, *spatial); padding past the last full stride belongs to the window (ceil mode)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def output_shape(self, x: TensorType) -> Shape:
        """(N, C, *extents)."""
        if x.rank != len(self.kernel) + 2:
            raise ModelError(f"a {len(self.kernel)}-d window over a tensor of rank {x.rank}")
        windows = zip(x.shape[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return (*x.shape[:2], *(conv_extent(*window) for window in windows))

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(x.dtype, self.output_shape(x)),)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        taps = 1
        for k in self.kernel:
            taps *= k
        return Cost(elementwise=outputs[0].size * taps)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        ties = alike(operand(0, 0), result(0), outputs[0].shape, (0, 1))
        return Flow(ties, reason="the window of a pool runs over it")


@register_op
@dataclass(frozen=True)
class MaxPool(Window):
    """The largest element of each window; padding never wins."""

    name: ClassVar[str] = "max_pool"
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(x.dtype, self.output_shape(x), x.quant),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(self.kernel) - 1]
        wide = x if x.is_floating_point() else x.to(torch.float64)
        y = pool(pad_spatial(wide, self.padding, lowest), self.kernel, self.stride, 0, self.dilation)
        return y.to(x.dtype)


@register_op
@dataclass(frozen=True)
class AvgPool(Window):
    """The mean of each window; ``count_padding`` says whether padding counts among its elements.

    ``overhang`` is how much of the trailing padding exists only because the output size was rounded up: it is never
    counted, as in torch and ONNX.
    """

    count_padding: bool = False
    overhang: tuple[int, ...] = ()

    name: ClassVar[str] = "avg_pool"
    quantization: ClassVar[Quantization] = Quantization.AVERAGE

    def run(self, x: torch.Tensor) -> torch.Tensor:
        total = self._sum(pad_spatial(x, self.padding))
        return total / self.counts(x.shape[2:]).to(x.dtype)

    def counts(self, spatial: Sequence[int]) -> torch.Tensor:
        """Number of elements in each window: a float tensor of the output's spatial shape."""
        inside = torch.ones(1, 1, *spatial, dtype=torch.float64)
        overhang = self.overhang or (0,) * len(self.kernel)
        real = tuple((b, a - o) for (b, a), o in zip(self.padding, overhang, strict=True))
        counted = pad_spatial(inside, real, 1.0 if self.count_padding else 0.0)
        return self._sum(pad_spatial(counted, tuple((0, o) for o in overhang)))[0, 0].round()

    def _sum(self, x: torch.Tensor) -> torch.Tensor:
        spatial = len(self.kernel)
        channels = x.shape[1]
        conv = (F.conv1d, F.conv2d, F.conv3d)[spatial - 1]
        ones = torch.ones(channels, 1, *self.kernel, dtype=x.dtype)
        return conv(x, ones, None, self.stride, 0, self.dilation, channels)


@register_op
@dataclass(frozen=True)
class MaxPoolIndices(Window):
    """Where each maximum was: its index (i64) in the flattened input; ``column_major`` flattens space the other way."""

    column_major: bool = False

    name: ClassVar[str] = "max_pool_indices"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(DType.I64, self.output_shape(x)),)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return Flow(reason="max_pool_indices counts through all channels")

    def run(self, x: torch.Tensor) -> torch.Tensor:
        spatial = len(self.kernel)
        padded = pad_spatial(x.to(torch.float64), self.padding, float("-inf"))
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[spatial - 1]
        _, place = pool(padded, self.kernel, self.stride, 0, self.dilation, return_indices=True)
        index = torch.zeros_like(place)
        weight = 1
        # From the fastest axis to the slowest: coordinates in the padded input become those in the input.
        coordinates: list[torch.Tensor] = []
        for size in reversed(padded.shape[2:]):
            coordinates.insert(0, place % size)
            place = torch.div(place, size, rounding_mode="floor")
        order = range(spatial) if self.column_major else range(spatial - 1, -1, -1)
        for axis in order:
            index += (coordinates[axis] - self.padding[axis][0]) * weight
            weight *= x.shape[2 + axis]
        images = torch.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * spatial)
        return index + images * weight


@register_op
@dataclass(frozen=True)
class MaxUnpool(Op):
    """Elements of ``x`` at ``indices`` of a zero tensor of shape ``pooled``, in the corner of one of shape ``size``."""

    pooled: tuple[int, ...]
    size: tuple[int, ...]

    name: ClassVar[str] = "max_unpool"
    operands: ClassVar[tuple[str, ...]] = ("x", "indices")

    def infer(self, x: TensorType, indices: TensorType) -> tuple[TensorType, ...]:
        if x.shape != indices.shape or indices.dtype is not DType.I64:
            raise ModelError(f"max_unpool of {x} with indices {indices}")
        return (TensorType(x.dtype, self.size),)

    def run(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros(math.prod(self.pooled), dtype=x.dtype)
        flat[indices.reshape(-1)] = x.reshape(-1)
        amounts = [(0, want - have) for want, have in zip(self.size[2:], self.pooled[2:], strict=True)]
        return pad_spatial(flat.reshape(self.pooled), tuple(amounts))
